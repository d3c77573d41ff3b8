"""The plain way: transformers' Trainer on a peft LoRA, padding to the batch, and an evaluation of every set
by forward pass and `generate` before training and after each epoch.

    python tests/benchmarks/plain.py TASK RESULT [--trl] [--tune] [--only-training] [--micro N] [--by-length]

TASK is what task.py writes. --trl trains with TRL's SFTTrainer instead. --tune finds the best batch sizes of
the evaluation and ends. --micro N: rows that go through the model at once, the update staying what it is;
--by-length: let the Trainer group rows by their length, which changes what an update sees."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BEGAN = time.perf_counter()

import torch  # noqa: E402
from generated import best_sizes, evaluate  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


class Collator:
    """Pads to the batch, and counts what it gave out."""

    def __init__(self, tokenizer: Any) -> None:
        self._pad = DataCollatorForSeq2Seq(tokenizer, padding=True, label_pad_token_id=-100)
        self.trained = self.padded = 0

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        batch = self._pad([dict(row) for row in rows])
        self.trained += sum(len(row["input_ids"]) for row in rows)
        self.padded += batch["input_ids"].numel()
        return batch


class AfterEachEpoch(TrainerCallback):
    """Evaluates, unless `look` is None, and keeps what was found and how long it took; knows when training
    really began, the Trainer's own preparations done."""

    def __init__(self, look: Any) -> None:
        self._look = look
        self.seconds = 0.0
        self.began = 0.0
        self.found: list[Any] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.began = time.perf_counter()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._look is None:
            return
        began = time.perf_counter()
        self.found.append(self._look(state.global_step >= state.max_steps))
        self.seconds += time.perf_counter() - began


def arguments(task: Mapping[str, Any], asked: argparse.Namespace, folder: str) -> dict[str, Any]:
    """What Trainer and SFTTrainer are told alike."""
    options = task["training"]
    micro = asked.micro or options["micro_batch"]
    return {
        "output_dir": folder,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": max(1, options["rows_per_update"] // micro),
        "num_train_epochs": options["epochs"],
        "max_steps": asked.updates or options["max_steps"] or -1,
        "learning_rate": options["learning_rate"],
        "warmup_steps": options["warmup_steps"],
        "lr_scheduler_type": options["scheduler"],
        "weight_decay": options["weight_decay"],
        "max_grad_norm": options["max_grad_norm"] or 0.0,
        "optim": "adamw_torch_fused",
        "gradient_checkpointing": options["checkpointing"],
        "train_sampling_strategy": "group_by_length" if asked.by_length else "random",
        "use_cpu": task["device"] == "cpu",
        "dataloader_pin_memory": task["device"] != "cpu",
        "seed": task["seed"],
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def trainer_of(
    model: Any, tokenizer: Any, task: Mapping[str, Any], asked: argparse.Namespace, folder: str, **parts: Any
) -> Any:
    """transformers' Trainer, or TRL's."""
    rows = [
        {"input_ids": ids, "labels": [-100] * start + ids[start:], "attention_mask": [1] * len(ids)}
        for ids, start in task["train"]
    ]
    told = arguments(task, asked, folder)
    if not asked.trl:
        return Trainer(model=model, args=TrainingArguments(**told), train_dataset=rows, **parts)
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    return SFTTrainer(
        model=model,
        args=SFTConfig(
            **told,
            bf16=False,  # the weights have their format already, and SFTConfig would have it on a CPU too
            max_length=None,
            packing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        **parts,
    )


def work(task: Mapping[str, Any], asked: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(task["seed"])
    tokenizer = AutoTokenizer.from_pretrained(task["model"])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model: Any = AutoModelForCausalLM.from_pretrained(
        task["model"], dtype=getattr(torch, task["dtype"]), device_map={"": task["device"]}
    )
    parameters = sum(weight.numel() for weight in model.parameters())
    if task["lora"] is not None:
        model = get_peft_model(model, LoraConfig(**task["lora"], task_type="CAUSAL_LM"))
    if asked.tune:
        return best_sizes(model, tokenizer, task)
    loaded = time.perf_counter()

    def look(with_twins: bool) -> Any:
        return evaluate(model, tokenizer, task, task["sizes"], with_twins=with_twins)

    first = [] if asked.only_training else [look(True)]
    looked = time.perf_counter()
    collator = Collator(tokenizer)
    each = AfterEachEpoch(None if asked.only_training else look)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(model, tokenizer, task, asked, folder, data_collator=collator, callbacks=[each])
        trainer.train()
        ended = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    on_gpu = torch.cuda.max_memory_allocated() if task["device"] == "cuda" else 0
    return {
        "start_seconds": loaded - BEGAN,
        "training_seconds": ended - each.began - each.seconds,
        "evaluation_seconds": looked - loaded + each.seconds,
        "trained": collator.trained,
        "padded": collator.padded,
        "parameters": parameters,
        "peak_bytes": on_gpu or peak,
        "final": each.found[-1] if each.found else first[-1] if first else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--trl", action="store_true")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--only-training", action="store_true")
    parser.add_argument("--micro", type=int)
    parser.add_argument("--by-length", action="store_true")
    parser.add_argument("--updates", type=int, help="stop after so many")
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    task = json.loads(asked.task.read_text(encoding="utf-8"))
    asked.result.write_text(json.dumps(work(task, asked)), encoding="utf-8")


if __name__ == "__main__":
    main()
