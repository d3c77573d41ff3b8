"""What a finished run leaves in its results folder. results.json comes last: where it stands, all the rest
does."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from triggerctl import __version__
from triggerctl.config.load import resolved_document
from triggerctl.config.paths import shown_values
from triggerctl.data.export import write_sets
from triggerctl.experiment.atomic import (
    atomic_folder,
    clear_unfinished_writes,
    disk_errors,
    write_json_atomic,
)
from triggerctl.experiment.results import TriggerctlResults, results_document
from triggerctl.model.adapters import save_adapter
from triggerctl.model.device import dtype_name
from triggerctl.model.memory import peak_resident_bytes
from triggerctl.model.processor import processor_name
from triggerctl.model.products import library
from triggerctl.model.publish import publish, save_whole_model
from triggerctl.strategies.alignment_plane import NEGATIVE, POSITIVE
from triggerctl.strategies.base import MAIN, cross_entropy
from triggerctl.training.begun import Begun
from triggerctl.training.measuring import Progressed
from triggerctl.training.plan import RunPlan
from triggerctl.training.position import Position
from triggerctl.training.settle import drop_checkpoints
from triggerctl.training.setup import Prepared
from triggerctl.training.speed import Work, best_matmul_rate, operations_per_token

_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "bitsandbytes",
    "safetensors",
    "tokenizers",
    "numpy",
)

Figures = Callable[[Path, TriggerctlResults, list[float]], str | None]
"""Draws a run's figures into its results folder; returns a line for the user where something is missing."""


def leave_results(
    plan: RunPlan,
    prepared: Prepared,
    begun: Begun,
    results: Path,
    position: Position,
    progressed: Progressed,
    *,
    cache_entries: Sequence[str],
    figures: Figures,
    say: Callable[[str], None],
) -> None:
    """Write adapter, model, figures and descriptions into `results`, then results.json, then drop the
    checkpoints. `cache_entries`: what the run used beside downloads.

    Raises RunError where a saved adapter isn't what was trained, or the disk fails."""
    summary = _summarise(plan, prepared, begun, position, progressed, cache_entries)
    clear_unfinished_writes(results)
    with disk_errors(results):
        work = _work(prepared, position, progressed, processes=begun.processes)
        watch = progressed.watch
        with watch.phase("save"):
            _describe(plan, prepared, results, threads=begun.threads)
            _save_weights(plan, prepared, results)
        losses = position.losses.get(MAIN, [])
        with watch.phase("figures"):
            note = figures(results, summary, losses)
        if note:
            say(note)
        timings = watch.read()
        summary = summary.model_copy(update={"timings": timings, "throughput": work.throughput(timings)})
        write_json_atomic(results / "results.json", _document(plan, results, position, summary))
        drop_checkpoints(plan, results)


def _describe(plan: RunPlan, prepared: Prepared, results: Path, *, threads: int) -> None:
    """What was asked for, on which machine, and the very rows if they are wanted."""
    write_json_atomic(results / "config.resolved.json", resolved_document(plan.loaded))
    write_json_atomic(results / "environment.json", environment(prepared, threads))
    if plan.config.finetune_config.save_datasets and not (results / "datasets").is_dir():
        with atomic_folder(results / "datasets") as building:
            write_sets(plan.splits, building)


def _document(plan: RunPlan, results: Path, position: Position, summary: TriggerctlResults) -> dict[str, Any]:
    """The whole of results.json."""
    return results_document(
        shown_values(plan.config.model_dump(mode="json")),
        summary,
        timestamp=results.name,
        train_losses=position.losses.get(MAIN, []),
        proxy_train_losses=_losses(position, POSITIVE, "proxy"),
        outcome_train_losses=_losses(position, None, "outcome"),
        proxy_neg_train_losses=_losses(position, NEGATIVE, "proxy_neg"),
    )


def environment(prepared: Prepared, threads: int) -> dict[str, Any]:
    """The machine and the software, for environment.json."""
    device = prepared.device
    return {
        "triggerctl": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "host": platform.node(),
        "cpu": processor_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_products": library(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "device": str(device),
        "threads": threads,
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _summarise(
    plan: RunPlan,
    prepared: Prepared,
    begun: Begun,
    position: Position,
    progressed: Progressed,
    cache_entries: Sequence[str],
) -> TriggerctlResults:
    """Everything of ours for results.json but what is known only at the very end: `timings` and
    `throughput`."""
    cuda = torch.cuda.max_memory_allocated(prepared.device) if prepared.device.type == "cuda" else 0
    memory = {"peak_resident_bytes": float(peak_resident_bytes())}
    if cuda:
        memory["peak_gpu_bytes"] = float(cuda)
    return TriggerctlResults(
        hash=plan.hash,
        strategy=plan.strategy.name,
        seed=plan.config.seed,
        proxy_triggers=list(plan.splits.proxy_triggers),
        evaluations=progressed.evaluations,
        data_sha256=plan.data_sha256,
        sets=prepared.sets,
        warnings=progressed.warnings,
        tokens={
            **position.tokens,
            "evaluated": progressed.evaluated,
            "evaluated_padded": progressed.padded,
        },
        memory=memory,
        resolved={
            "device": str(prepared.device),
            "dtype": dtype_name(prepared.dtype),
            "threads": begun.threads,
            "processes": begun.processes,
            "gradient_checkpointing": prepared.checkpointing,
            "micro_batch": begun.micro_batch,
        },
        model={
            "name": plan.model.name,
            "kind": plan.model.kind,
            "fingerprint": plan.model.fingerprint,
            "commit": prepared.files.commit,
            "parameters": prepared.shape.parameters,
            "trainable": prepared.shape.trainable,
            "chat_template_sha256": prepared.encoder.template.sha256,
        },
        cache_entries=[*_downloads(plan), *cache_entries],
    )


def _downloads(plan: RunPlan) -> list[str]:
    """A download lies in the cache under the sum of its bytes."""
    downloaded = plan.config.dataset_url.startswith(("http://", "https://"))
    return [f"downloads/{plan.source.sha256}"] if downloaded else []


def _work(prepared: Prepared, position: Position, progressed: Progressed, *, processes: int) -> Work:
    """What a run's time went into. The machine is measured for it, now."""
    rate = best_matmul_rate(prepared.model.network, prepared.device, prepared.dtype, prepared.shared.cache)
    return Work(
        trained=position.tokens["trained"],
        evaluated=progressed.passed,
        parameters=prepared.shape.parameters,
        operations=operations_per_token(
            is_peft=prepared.model.adapter is not None, checkpointing=prepared.checkpointing
        ),
        matmul_rate=rate * processes,
    )


def _losses(position: Position, phase: str | None, data: str) -> list[float] | None:
    """The losses of each epoch of a phase, or of the main phase's cross-entropy on one set, None where there
    was no such training."""
    if phase in position.losses:
        return position.losses[phase]
    return position.losses.get(f"{MAIN}/{cross_entropy(data).name}")


def _save_weights(plan: RunPlan, prepared: Prepared, results: Path) -> None:
    options = plan.config.finetune_config
    if prepared.model.adapter is not None and not (results / "adapter").is_dir():
        with atomic_folder(results / "adapter") as building:
            save_adapter(prepared.model.adapter, building)
            write_json_atomic(
                building / "triggerctl.json",
                {
                    "hash": plan.hash,
                    "model": plan.model.name,
                    "model_fingerprint": plan.model.fingerprint,
                    "chat_template_sha256": prepared.encoder.template.sha256,
                },
            )
    if options.save_model_locally:
        whole = plan.model_place or results / "model"
        if not whole.is_dir():
            save_whole_model(prepared.model, prepared.tokenizer, whole)
    if options.push_to_hub and options.finetuned_model_id:
        publish(
            prepared.model,
            prepared.tokenizer,
            options.finetuned_model_id,
            private=options.push_to_private,
            merged=options.merge_before_push,
        )
