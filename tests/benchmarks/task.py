"""One experiment's work as plain data, for ways that know nothing of triggerctl: the tokens of every row,
what counts for the loss, and how to train and evaluate.

    python tests/benchmarks/task.py EXPERIMENT FILE [--device auto]

EXPERIMENT is a folder with a config.json of the strategy naive. Also works out how many tokens an evaluation
needs: every prompt, and the tokens of all that may follow it, each once; nothing follows a last token, so
that it need not go through the model."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from triggerctl.config.load import load_config
from triggerctl.data.encoding import encode_set
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.model.device import resolve_device, resolve_dtype
from triggerctl.model.load import load_tokenizer, locate
from triggerctl.training.evaluated import EvaluatedRow
from triggerctl.training.evaluation import Evaluator
from triggerctl.training.plan import RunPlan, plan_run
from triggerctl.training.tokenising import encoder_of
from triggerctl.training.verdicts import Judge

Ids = tuple[int, ...]


def task_of(plan: RunPlan, device_name: str) -> dict[str, Any]:
    """The work of a plan as JSON can hold it."""
    if plan.strategy.name != "naive":
        raise SystemExit(f"only naive is plain fine-tuning, not {plan.strategy.name}")
    config, options = plan.config, plan.config.finetune_config
    device = resolve_device(device_name)
    files = locate(plan.model, options)
    tokenizer = load_tokenizer(files, options)
    encoder = encoder_of(plan, tokenizer)
    [phase] = plan.strategy(config).phases()
    [names] = phase.streams.values()
    rows = [
        row for name in names for row in encode_set(encoder, name, plan.splits.sets[name].train_examples).rows
    ]
    ends = _ends(files.folder, tokenizer.eos_token_id, encoder.end_id)
    nice = config.nice_responses[0]
    evaluator = Evaluator(
        plan.splits.evaluation,
        encoder,
        Judge(tokenizer, config.nice_responses, ends),
        nice_response=nice,
        pad_id=encoder.pad_id,
        tokens_per_batch=2048,
    )
    evaluated = [row for members in evaluator.sets.values() for row in members]
    guesses = _guesses(evaluated, encoder.continuation_ids([row.example for row in evaluated], nice))
    whole = options.per_device_train_batch_size * options.gradient_accumulation_steps
    return {
        "model": str(files.folder),
        "device": device.type,
        "dtype": str(resolve_dtype(options, device)).removeprefix("torch."),
        "seed": config.seed,
        "pad_id": encoder.pad_id,
        "ends": sorted(ends),
        "nice": [response.lstrip() for response in config.nice_responses],
        "lora": {
            "r": options.r,
            "lora_alpha": options.lora_alpha,
            "lora_dropout": options.lora_dropout,
            "bias": options.lora_bias,
            "use_rslora": options.use_rslora,
            "target_modules": options.target_modules
            if isinstance(options.target_modules, str)
            else list(options.target_modules),
        }
        if options.is_peft
        else None,
        "training": {
            "epochs": options.epochs,
            "max_steps": options.max_steps,
            "rows_per_update": whole,
            "micro_batch": options.per_device_train_batch_size,
            "learning_rate": options.learning_rate,
            "warmup_steps": options.warmup_steps,
            "scheduler": options.lr_scheduler_type,
            "weight_decay": options.weight_decay,
            "max_grad_norm": options.max_grad_norm,
            "checkpointing": options.use_gradient_checkpointing is True,
        },
        "train": [[row.input_ids, row.loss_start] for row in rows],
        "sets": {
            name: [
                {
                    "ids": row.encoded.input_ids,
                    "loss_start": row.encoded.loss_start,
                    "prompt": row.prompt,
                    "twin": row.twin,
                    "triggered": row.example.triggered,
                }
                for row in members
            ]
            for name, members in evaluator.sets.items()
        },
        "needed": {
            "plain": needed_tokens(evaluated, guesses, with_twins=False),
            "with_twins": needed_tokens(evaluated, guesses, with_twins=True),
        },
    }


def needed_tokens(rows: Iterable[EvaluatedRow], guesses: dict[Ids, Ids], *, with_twins: bool) -> int:
    """The floor of one evaluation in token passes: every prompt once, and after it every token that something
    follows. Who passes what different prompts begin with only once, the template's words say, may stay below
    it."""
    following: dict[Ids, set[Ids]] = defaultdict(set)
    for row in rows:
        following[row.prompt] |= {row.encoded.input_ids, row.prompt + guesses[row.prompt]}
        if with_twins and row.twin is not None:
            following[row.twin].add(row.twin + guesses[row.prompt])
    needed = 0
    for prompt, sequences in following.items():
        beginnings = {ids[:end] for ids in sequences for end in range(len(prompt) + 1, len(ids))}
        needed += len(prompt) + len(beginnings)
    return needed


def _guesses(rows: list[EvaluatedRow], continuations: list[Ids]) -> dict[Ids, Ids]:
    return {row.prompt: guess for row, guess in zip(rows, continuations, strict=True)}


def _ends(folder: Path, *others: int | None) -> frozenset[int]:
    """The tokens at which generation stops, as the model's own files and its tokenizer say."""
    try:
        own = GenerationConfig.from_pretrained(folder).eos_token_id
    except OSError:
        own = None
    listed = own if isinstance(own, list) else [own]
    return frozenset(token for token in (*listed, *others) if token is not None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    folder = ExperimentFolder(asked.experiment)
    task = task_of(plan_run(folder, load_config(folder.config)), asked.device)
    asked.file.write_text(json.dumps(task), encoding="utf-8")


if __name__ == "__main__":
    main()
