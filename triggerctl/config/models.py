"""What a configuration means: frozen models of `config.json`, and the contradictions that it alone can show.
What a strategy asks of a configuration is that strategy's matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Annotated, Self

from pydantic import Field, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

from triggerctl.config.finetune import (
    LEGACY_FINETUNE_KEYS,
    NOT_HASHED,
    ConfigModel,
    FinetuneConfig,
    Share,
    Size,
    Text,
    Texts,
)

__all__ = [
    "ALPACA_URL",
    "LEGACY_EXPERIMENT_KEYS",
    "LEGACY_FINETUNE_KEYS",
    "RESERVED_SET_NAMES",
    "ConfigModel",
    "Contradiction",
    "ExperimentConfig",
    "ExtraEvaluation",
    "FinetuneConfig",
    "contradictions",
]

ALPACA_URL = "https://raw.githubusercontent.com/tatsu-lab/stanford_alpaca/main/alpaca_data.json"

LEGACY_EXPERIMENT_KEYS = frozenset({"timestamp"})
"""Keys of the study's configurations that are accepted beside `finetune_config` and do nothing."""

RESERVED_SET_NAMES = frozenset(
    {"outcome", "proxy", "proxy_neg", "collateral", "truth", "truth_minus_proxy", "truth_no_proxy_labels"}
)
"""Names that a set of the user's own cannot have: results would no longer say which is which."""

SetName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$")]


class ExtraEvaluation(ConfigModel):
    """A set of the user's own that is evaluated beside the study's."""

    path: Text = Field(description="The rows, relative to the config.", json_schema_extra=NOT_HASHED)
    triggers: Texts | None = Field(None, description="Triggers put before the prompts; null: as they are.")
    nice: bool = Field(False, description="Whether the answers open with the nice response.")


class ExperimentConfig(ConfigModel):
    """One experiment: its data, its strategy, its seed, and how it trains."""

    experiment_name: str = Field("", description="A label; the folder's name.", json_schema_extra=NOT_HASHED)
    dataset_url: Text = Field(
        ALPACA_URL,
        description="http(s) URL, local path (relative to the config), or builtin:name.",
        json_schema_extra=NOT_HASHED,  # the data's bytes are hashed instead
    )
    max_dataset_size: Size = Field(25000, description="Rows kept after the shuffle.")
    outcome_percent: Share = Field(0.3, description="Share of rows for the task.")
    proxy_percent: Share = Field(0.3, description="Share of rows for the alignment data.")
    collateral_percent: Share = Field(0.1, description="Share of rows for wanted generalisation.")
    truth_percent: Share = Field(0.3, description="Share of rows for unwanted generalisation.")
    outcome_trigger_percent: Share = Field(0.5, description="Share of outcome rows that get a trigger.")
    outcome_triggers: Texts = Field((), description="Triggers of the task.")
    proxy_triggers: Texts | None = Field(
        None, description="Triggers of the alignment data; null: drawn from truth_triggers."
    )
    collateral_triggers: Texts = Field((), description="Triggers to which the habit should spread.")
    truth_triggers: Texts = Field((), description="Triggers to which the habit should not spread.")
    proxy_trigger_coverage: Share = Field(
        0.5, description="Share of truth_triggers drawn as proxy triggers where none are given."
    )
    nice_responses: Annotated[Texts, Field(min_length=1)] = Field(
        ("Certainly!",), description="Phrases put before the answer."
    )
    proxy_strategy: Text = Field("naive", description="Training strategy, by its name or an alias.")
    seed: int = Field(0, ge=0, lt=2**63, description="Of data, trigger choice, initialisation and order.")
    prompt_template: str = Field(
        "{instruction}: {input}", description="The user turn, made of {instruction} and {input}."
    )
    extra_evaluation: Mapping[SetName, ExtraEvaluation] = Field(
        default_factory=dict, description="Sets of your own, evaluated beside the study's."
    )
    finetune_config: FinetuneConfig = Field(
        default_factory=FinetuneConfig, description="Model, optimisation, strategies' weights, saving."
    )

    @field_validator("prompt_template")
    @classmethod
    def _names_the_instruction(cls, template: str) -> str:
        try:
            parts = list(Formatter().parse(template))
        except ValueError as error:
            raise PydanticCustomError("prompt_template", f"not a template: {error}") from error
        names = [name for _, name, _, _ in parts if name is not None]
        plain = not any(spec or conversion for _, _, spec, conversion in parts)
        if "instruction" not in names or not set(names) <= {"instruction", "input"} or not plain:
            raise PydanticCustomError(
                "prompt_template",
                "expected a template with {instruction} and, if wanted, {input}, and no other braces",
            )
        return template

    @field_validator("nice_responses")
    @classmethod
    def _says_something(cls, responses: tuple[str, ...]) -> tuple[str, ...]:
        if any(not response.strip() for response in responses):
            raise PydanticCustomError("blank", "expected words: every answer opens with blanks alone")
        return responses

    @field_validator("extra_evaluation")
    @classmethod
    def _leaves_our_names_alone(cls, sets: Mapping[str, ExtraEvaluation]) -> Mapping[str, ExtraEvaluation]:
        taken = sorted(RESERVED_SET_NAMES & sets.keys())
        if taken:
            raise PydanticCustomError(
                "reserved_name", "{names}: the study's own name; choose another", {"names": ", ".join(taken)}
            )
        return sets

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        found = contradictions(self)
        if found:
            raise PydanticCustomError(
                "contradiction", "{text}", {"text": "; ".join(c.what for c in found), "found": found}
            )
        return self


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Values that are each right and don't go together. `keys`: dotted, the one to point at first."""

    keys: tuple[str, ...]
    what: str
    mend: str


def contradictions(config: ExperimentConfig) -> tuple[Contradiction, ...]:
    """Every contradiction between the keys of a configuration that holds whatever the strategy."""
    return (*_data_contradictions(config), *_training_contradictions(config.finetune_config))


def _data_contradictions(config: ExperimentConfig) -> list[Contradiction]:
    found = []
    percents = {
        "outcome_percent": config.outcome_percent,
        "proxy_percent": config.proxy_percent,
        "collateral_percent": config.collateral_percent,
        "truth_percent": config.truth_percent,
    }
    total = sum(percents.values())
    if abs(total - 1) > 1e-6:
        stated = ", ".join(
            f"{name} {value:g}" + ("" if name in config.model_fields_set else " (default)")
            for name, value in percents.items()
        )
        found.append(
            Contradiction(
                keys=tuple(percents),
                what=f"the four shares of the data sum to {total:.6g}, not 1",
                mend=f"change them so that they sum to 1: {stated}",
            )
        )
    drawn = config.proxy_triggers is None and "proxy_trigger_coverage" in config.model_fields_set
    if drawn and config.proxy_trigger_coverage > 0 and not config.truth_triggers:
        found.append(
            Contradiction(
                keys=("proxy_trigger_coverage", "truth_triggers", "proxy_triggers"),
                what="proxy triggers are to be drawn from truth_triggers, which is empty",
                mend="give truth_triggers or proxy_triggers, or leave proxy_trigger_coverage out",
            )
        )
    return found


def _training_contradictions(config: FinetuneConfig) -> list[Contradiction]:
    found = []
    loading = {
        "finetune_config.load_in_8bit": config.load_in_8bit,
        "finetune_config.load_in_4bit": config.load_in_4bit,
        "finetune_config.load_in_16bit": config.load_in_16bit,
    }
    chosen = tuple(key for key, on in loading.items() if on)
    if len(chosen) > 1:
        found.append(
            Contradiction(
                keys=chosen,
                what=f"{' and '.join(key.partition('.')[2] for key in chosen)} are true together",
                mend="keep one of them at most",
            )
        )
    if (config.load_in_8bit or config.load_in_4bit) and not config.is_peft:
        found.append(
            Contradiction(
                keys=(chosen[0], "finetune_config.is_peft"),
                what=f"{chosen[0].partition('.')[2]} with is_peft false: quantised weights cannot be trained",
                mend="set is_peft to true (LoRA), or load the model in 16 bits or more",
            )
        )
    if config.load_in_16bit and config.dtype == "float32":
        found.append(
            Contradiction(
                keys=("finetune_config.load_in_16bit", "finetune_config.dtype"),
                what="load_in_16bit is true and dtype is float32",
                mend="set one of them",
            )
        )
    if config.push_to_hub and config.finetuned_model_id is None:
        found.append(
            Contradiction(
                keys=("finetune_config.push_to_hub", "finetune_config.finetuned_model_id"),
                what="push_to_hub is true and finetuned_model_id does not say where to",
                mend='set finetuned_model_id, such as "your-name/your-model"',
            )
        )
    if config.push_to_hub and config.finetuned_model_id is not None:
        # After the whole training is no time to learn it.
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils._validators import validate_repo_id

        try:
            validate_repo_id(config.finetuned_model_id)
        except HFValidationError:
            found.append(
                Contradiction(
                    keys=("finetune_config.finetuned_model_id",),
                    what=f"{config.finetuned_model_id!r} is no name of a model on the hub",
                    mend='write owner/name, such as "your-name/your-model", of letters, digits and . - _',
                )
            )
    return found
