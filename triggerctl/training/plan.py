"""What a run would do, decided before anything heavy is loaded: its strategy, data, identity, and whether it
is to be trained, resumed, skipped or left alone. Imports no torch, so that a command with nothing to do is
quick."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from triggerctl import disk
from triggerctl.config.load import LoadedConfig
from triggerctl.config.models import ExperimentConfig
from triggerctl.config.paths import written_path
from triggerctl.data.examples import Splits
from triggerctl.data.extra import data_sha256, load_extra
from triggerctl.data.progress import Progress
from triggerctl.data.source import Source, load_rows
from triggerctl.data.splits import build_splits
from triggerctl.errors import InputError, Problem
from triggerctl.experiment.atomic import disk_errors
from triggerctl.experiment.fingerprint import config_hash
from triggerctl.experiment.layout import ExperimentFolder
from triggerctl.model.identity import ModelIdentity, identify
from triggerctl.strategies import canonical_name, strategy_class
from triggerctl.strategies.base import Strategy
from triggerctl.training.decision import Action, decide

LEGACY_PLANES = (".pt", ".pth")
"""Suffixes of the study's alignment planes: pickles, which say nothing of their origin."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Everything `execute` needs. `weights`: the model whose weights training starts from, where that is not
    `model`. `finished` is the results folder that makes the run unnecessary (SKIP) or that --dont-overwrite
    protects (BLOCKED)."""

    folder: ExperimentFolder
    loaded: LoadedConfig
    config: ExperimentConfig
    strategy: type[Strategy]
    source: Source
    data_sha256: str
    splits: Splits
    model: ModelIdentity
    weights: ModelIdentity | None
    hash: str
    action: Action
    reason: str
    finished: Path | None
    fresh: bool
    warnings: tuple[str, ...]

    @property
    def plane_may_be_written(self) -> bool:
        """Whether `steering_vector_path` leads to a place in the experiment."""
        given = self.config.finetune_config.steering_vector_path or ""
        try:
            written_path(given, folder=self.loaded.folder, experiment=self.folder.experiment, key="")
        except InputError:
            return False
        return True

    @property
    def model_place(self) -> Path | None:
        """Where `output_dir` says that a whole model is to be saved."""
        given = self.config.finetune_config.output_dir
        return self.loaded.folder / Path(given).expanduser() if given is not None else None


def check_config(loaded: LoadedConfig) -> tuple[ExperimentConfig, tuple[str, ...]]:
    """The configuration with its strategy's full name, and what to warn of; no data and no model is touched.

    Raises InputError where the strategy is unknown or makes no sense with this configuration."""
    asked = loaded.config.proxy_strategy
    try:
        name = canonical_name(asked)
    except InputError as error:
        raise _placed(error, loaded) from None
    config = loaded.config.model_copy(update={"proxy_strategy": name})
    warnings = list(loaded.warnings)
    try:
        strategy = strategy_class(name)
    except InputError as error:
        return config, (*warnings, str(error.problems[0].what))
    check = strategy.check(loaded.config)
    errors = list(check.errors)
    if strategy.lora_only and not config.finetune_config.is_peft:
        errors.append(f"{name} works on LoRA's matrices, and is_peft is false: set it to true")
    if errors:
        where = f"{loaded.path}, proxy_strategy"
        problems = [Problem(what, where=where) for what in errors]
        raise InputError(problems[0].what, where=where, also=tuple(problems[1:]))
    return config, (*warnings, *check.warnings, *_warmup_without_effect(loaded))


def _warmup_without_effect(loaded: LoadedConfig) -> tuple[str, ...]:
    options = loaded.config.finetune_config
    asked = loaded.origins.get("finetune_config.warmup_steps", "default") != "default"
    if options.lr_scheduler_type != "constant" or not options.warmup_steps or not asked:
        return ()
    return (
        f"warmup_steps {options.warmup_steps} has no effect: lr_scheduler_type constant knows no warm-up "
        "(constant_with_warmup does)",
    )


def plan_run(
    folder: ExperimentFolder,
    loaded: LoadedConfig,
    *,
    fresh: bool = False,
    dont_overwrite: bool = False,
    progress: Progress | None = None,
) -> RunPlan:
    """Read the data, name the model, compute the run's hash and look what lies in its folder.

    Raises InputError for anything in configuration, data or model name that can't be used."""
    config, warnings = check_config(loaded)
    try:
        strategy = strategy_class(config.proxy_strategy)
    except InputError as error:
        raise _placed(error, loaded) from None
    _check_places(folder, config, loaded, strategy)
    source = load_rows(config.dataset_url, folder=loaded.folder, progress=progress)
    extra = load_extra(config, folder=loaded.folder, progress=progress)
    splits = build_splits(source.rows, config, extra=extra)
    options = config.finetune_config
    model = identify(options.model, revision=options.revision, relative_to=loaded.folder)
    weights = _initial_weights(strategy, config, loaded)
    data = data_sha256(source.sha256, extra)
    _check_training_data(strategy, config, splits)
    run_hash = config_hash(
        config,
        data_sha256=data,
        model_identity=model.fingerprint + (f" {weights.fingerprint}" if weights else ""),
        strategy=strategy.name,
        reads=strategy.reads,
        extra_data=_foreign_plane(config, loaded, strategy),
    )
    action, reason, finished = decide(folder, config, run_hash, fresh=fresh, dont_overwrite=dont_overwrite)
    return RunPlan(
        folder=folder,
        loaded=loaded,
        config=config,
        strategy=strategy,
        source=source,
        data_sha256=data,
        splits=splits,
        model=model,
        weights=weights,
        hash=run_hash,
        action=action,
        reason=reason,
        finished=finished,
        fresh=fresh,
        warnings=(
            *warnings,
            *source.notes,
            *splits.notes,
            *_trusted_code(config),
            *_foreign_checkpoints(folder, run_hash),
        ),
    )


def _initial_weights(
    strategy: type[Strategy], config: ExperimentConfig, loaded: LoadedConfig
) -> ModelIdentity | None:
    """The model whose weights training starts from, None where it is the one that the configuration names."""
    other = strategy.initial_checkpoint(config)
    if other is None:
        return None
    key = "finetune_config.safe_lora_unaligned_model"
    return identify(other, revision=None, relative_to=loaded.folder, key=key)


def plane_path(config: ExperimentConfig, loaded: LoadedConfig) -> Path | None:
    """Where `steering_vector_path` says that the alignment plane lives; a relative path starts at the
    configuration."""
    given = config.finetune_config.steering_vector_path
    return loaded.folder / Path(given).expanduser() if given is not None else None


def _check_places(
    folder: ExperimentFolder, config: ExperimentConfig, loaded: LoadedConfig, strategy: type[Strategy]
) -> None:
    """Raises InputError where the run would write out of its experiment."""
    options = config.finetune_config
    plane = plane_path(config, loaded)
    places = {}
    if options.save_model_locally and options.output_dir is not None:
        places["output_dir"] = options.output_dir
    # One that is to be loaded and is not there is computed, with a warning, and kept in the cache alone.
    is_written = options.save_steering_vector and not options.load_steering_vector
    if "steering_vector_path" in strategy.reads and is_written and plane is not None and not plane.is_file():
        places["steering_vector_path"] = str(options.steering_vector_path)
    for key, spec in places.items():
        place = f"finetune_config.{key}"
        written_path(spec, folder=loaded.folder, experiment=folder.experiment, key=place)


def _trusted_code(config: ExperimentConfig) -> tuple[str, ...]:
    options = config.finetune_config
    if not options.trust_remote_code:
        return ()
    return (f"trust_remote_code: Python code that comes with {options.model} runs on this machine",)


def _foreign_plane(
    config: ExperimentConfig, loaded: LoadedConfig, strategy: type[Strategy]
) -> dict[str, str]:
    """A plane of ours is known by what made it; one of the study's only by its content."""
    path = plane_path(config, loaded)
    asked = config.finetune_config.load_steering_vector and "load_steering_vector" in strategy.reads
    if not asked or path is None or path.suffix not in LEGACY_PLANES or not path.is_file():
        return {}
    with disk_errors(path, "read"), disk.open_to_read(path) as file:
        return {"alignment plane": hashlib.file_digest(file, "sha256").hexdigest()}


def _placed(error: InputError, loaded: LoadedConfig) -> InputError:
    """The same error, with the file and line that named the strategy."""
    first = error.problems[0]
    origin = loaded.origins.get("proxy_strategy", "default")
    place = f"{loaded.folder / origin}" if origin.startswith(loaded.path.name) else origin
    return InputError(first.what, where=f"{place}, proxy_strategy", why=first.why, mend=first.mend)


def _check_training_data(strategy: type[Strategy], config: ExperimentConfig, splits: Splits) -> None:
    for phase in strategy(config).phases():
        for stream, sets in phase.streams.items():
            empty = [name for name in sets if not splits.sets[name].train]
            if len(empty) == len(sets) or "outcome" in empty:
                raise InputError(
                    f"{strategy.name} trains on {stream}, and that has no rows",
                    where=", ".join(f"{name}_percent" for name in empty),
                    why="the split is empty at this size, share and limit",
                    mend="raise its percent or max_dataset_size, or choose a strategy that does not use it",
                )


def _foreign_checkpoints(folder: ExperimentFolder, run_hash: str) -> tuple[str, ...]:
    others = folder.foreign_checkpoints(run_hash)
    if not others:
        return ()
    return (
        "an unfinished run of another configuration is left as it is, in "
        + ", ".join(f"{folder.checkpoints.name}/{other}" for other in others),
    )
