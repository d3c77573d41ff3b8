"""`finetune_config`: the model, its optimisation, the strategies' weights, and what is saved. Values stay as
they were asked for ("auto" stays "auto"); a key without a default is None when it was not given."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], Field(strict=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Cosine = Annotated[float, Field(ge=-1, le=1)]
Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]
ProxySource = Literal["proxy", "proxy_neg", "outcome"]

NOT_HASHED: dict[str, Any] = {"hashed": False}
"""Marks a key that cannot change a result: two runs that differ in nothing else are the same run."""

LEGACY_FINETUNE_KEYS = frozenset(
    {
        "load_from_finetuned",
        "load_from_finetuned_path",
        "load_from_hf_hub",
        "resume_from_epoch",
        "loaded_train_losses",
        "loaded_results",
        "save_steps",
        "save_checkpoints_to_hub",
        "checkpoint_save_model_frequency",
        "merge_for_checkpoint",
        "lambda_2",
        "load_proxy_plane",
        "save_proxy_plane",
        "proxy_plane_checkpoint_path",
        "proxy_to_merge",
        "do_outcome_minus_proxy_neg",
        "nice_responses",
        "timestamp",
    }
)
"""Keys of the study's configurations that are accepted in `finetune_config` and do nothing."""


class ConfigModel(BaseModel):
    """Frozen and strict: no string for a number, no unknown key; a whole number serves where a float is
    wanted, and null means the default."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_means_default(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {k: v for k, v in values.items() if v is not None or k not in cls.model_fields}


class FinetuneConfig(ConfigModel):
    """How one run trains and what it keeps."""

    # The model
    model: Text = Field(
        "google/gemma-2b-it",
        description="Hub id, local path (relative to the config), or builtin:tiny.",
        json_schema_extra=NOT_HASHED,  # its identity is hashed, not how it is named
    )
    load_in_8bit: bool = Field(False, description="Load the model in 8 bits, through bitsandbytes.")
    load_in_4bit: bool = Field(False, description="Load the model in 4 bits, through bitsandbytes.")
    load_in_16bit: bool = Field(False, description="Load the model in 16 bits.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: bfloat16 for LoRA on a GPU that has it, else float32."
    )
    revision: Text | None = Field(None, description="Revision of the model on the hub.")
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model.")
    attn_implementation: Literal[
        "auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"
    ] = Field("auto", description="The attention of transformers to use; auto: its own choice.")
    max_seq_length: Size = Field(126, description="Tokens per row; longer rows lose the end of the answer.")
    loss_on: Literal["all", "response"] = Field(
        "all", description="Train on prompt and answer, or the answer."
    )
    is_peft: bool = Field(True, description="Train LoRA adapters; false: train every weight.")
    r: Size = Field(32, description="LoRA rank.")
    lora_alpha: Size = Field(64, description="LoRA scale.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the LoRA matrices.")
    lora_bias: Literal["none", "all", "lora_only"] = Field("none", description="Which biases are trained.")
    use_rslora: bool = Field(True, description="Scale by alpha / sqrt(r) instead of alpha / r.")
    target_modules: Literal["all-linear"] | Annotated[Texts, Field(min_length=1)] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        description="Names of the modules that get LoRA matrices, or all-linear.",
    )

    # Optimisation
    learning_rate: float = Field(1e-5, gt=0, description="Peak learning rate.")
    epochs: Count = Field(15, description="Passes over the outcome data; 0: evaluate only.")
    outcome_epochs: Count | None = Field(None, description="Epochs on outcome in two-phase strategies.")
    proxy_epochs: Count | None = Field(None, description="Epochs of the proxy phase in two-phase strategies.")
    max_steps: Size | None = Field(None, description="Stop after this many optimiser updates.")
    per_device_train_batch_size: Size = Field(128, description="Rows per training batch.")
    per_device_eval_batch_size: Size | None = Field(
        None, description="Rows per evaluation batch; chosen for you.", json_schema_extra=NOT_HASHED
    )
    gradient_accumulation_steps: Size = Field(8, description="Batches per optimiser update, token-weighted.")
    warmup_steps: Count = Field(5, description="Updates over which the learning rate rises to its peak.")
    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
    ] = Field("linear", description="How the learning rate goes on after the warm-up.")
    optim: Literal["adamw_8bit", "adamw_torch", "paged_adamw_8bit", "sgd"] = Field(
        "adamw_8bit", description="Optimiser; where the 8-bit one does not work: 32-bit, with a warning."
    )
    weight_decay: Weight = Field(0.01, description="Decoupled weight decay.")
    max_grad_norm: float | None = Field(None, gt=0, description="Clip the gradient's norm to this.")
    use_gradient_checkpointing: bool | Literal["auto"] = Field(
        "auto",
        description="Spend time to save memory; auto: only where memory would not do.",
        json_schema_extra=NOT_HASHED,
    )
    train_split: float = Field(0.9, gt=0, lt=1, description="Training share of outcome and proxy.")
    limit_proxy_data_to: Count | None = Field(None, description="Rows of proxy training data, at most.")
    max_to_eval: Size = Field(2000, description="Rows per evaluation set, at most.")
    logging_steps: Size = Field(1, description="Log every n updates.", json_schema_extra=NOT_HASHED)
    loss: Literal["sft"] = Field("sft", description="The only value.")

    # Strategies
    lambda_proxy: Weight = Field(0.5, description="positive_negative_proxy: weight of the proxy loss.")
    neg_lambda_proxy: Weight = Field(
        0.5, description="positive_negative_proxy: weight of the proxy_neg loss."
    )
    beta_kl: Weight = Field(0.0, description="kl_divergence, representation_constraint: weight of the term.")
    beta_representation: Weight | None = Field(
        None, description="representation_constraint: weight of the term, before beta_kl."
    )
    proxy_cycling_mode: Literal["continuous", "synchronized"] = Field(
        "continuous", description="What an epoch is where several sources are trained on."
    )
    proxy_neg_content: Literal["prefix_response", "random"] = Field(
        "prefix_response", description="proxy_neg: proxy with the nice response, or without any trigger."
    )
    positive_proxy: ProxySource | None = Field(None, description="Data of the proxy phase, positive side.")
    negative_proxy: ProxySource | None = Field(None, description="Data of the proxy phase, negative side.")
    add_proxy_gradients: bool = Field(False, description="Alignment plane: sum instead of difference.")
    calc_alignment_plane_using_fully_finetuned_weights: bool = Field(
        False, description="Alignment plane from the difference of weights instead of gradients."
    )
    lambda_1: Weight = Field(
        0.5, description="orth_penalty, directional_penalty, o_lora: weight of the penalty."
    )
    steering_alpha: float = Field(0.5, description="steering_weights, steer_at_end: weight of the plane.")
    alpha_scheduler_type: Literal["linear"] | None = Field(None, description="How steering_alpha changes.")
    final_steering_alpha: float = Field(0.1, description="Where a scheduled steering_alpha ends.")
    alpha_warmup_steps: Count = Field(5, description="Updates before steering_alpha starts to change.")
    direct_steering: bool = Field(False, description="Steer the weights instead of the gradient.")
    steering_vector_path: Text | None = Field(
        None, description="Where the plane lives; derived.", json_schema_extra=NOT_HASHED
    )
    load_steering_vector: bool = Field(False, description="Load the plane if it is there.")
    save_steering_vector: bool = Field(True, description="Save the plane.", json_schema_extra=NOT_HASHED)
    project_along_positive_proxy_grad: bool = Field(
        True, description="grad_project: along the proxy gradient; false: against that of proxy_neg."
    )
    project_strictly_orthogonal: bool = Field(
        True, description="grad_project: always; false: only where the gradients conflict."
    )
    safe_lora_type: Literal["threshold", "number"] | None = Field(
        None, description="safe_lora: project matrices below a cosine, or a number of them."
    )
    safe_lora_threshold: Cosine | None = Field(None, description="safe_lora: the cosine.")
    safe_lora_num_proj_layers: Count | None = Field(None, description="safe_lora: the number.")
    safe_lora_sweep_thresholds: Annotated[tuple[Cosine, ...], Field(strict=False)] | None = Field(
        None, description="safe_lora: evaluate these thresholds from one training."
    )
    safe_lora_unaligned_model: Text | None = Field(
        None, description="safe_lora: the weights from which stage 1 starts; the model itself."
    )
    lambda_dpo: Weight = Field(1.0, description="dpo: weight of the preference loss.")
    beta: float = Field(0.1, gt=0, description="dpo: temperature.")
    dpo_length_normalized: bool = Field(True, description="dpo: mean over answer tokens instead of the sum.")

    # Saving and hub
    save_model_locally: bool = Field(
        False, description="Save a whole model too; an adapter always is.", json_schema_extra=NOT_HASHED
    )
    save_datasets: bool = Field(
        False, description="Save the sets with the results.", json_schema_extra=NOT_HASHED
    )
    output_dir: Text | None = Field(
        None, description="Folder for a saved model, instead of the results.", json_schema_extra=NOT_HASHED
    )
    finetuned_model_id: Text | None = Field(
        None, description="Name of the trained model on the hub.", json_schema_extra=NOT_HASHED
    )
    push_to_hub: bool = Field(False, description="Push the trained model.", json_schema_extra=NOT_HASHED)
    push_to_private: bool = Field(
        True, description="Push to a private repository.", json_schema_extra=NOT_HASHED
    )
    merge_before_push: bool = Field(
        False, description="Merge the adapter before the push.", json_schema_extra=NOT_HASHED
    )
    save_checkpoints_locally: bool = Field(
        False, description="Keep epoch checkpoints after the run.", json_schema_extra=NOT_HASHED
    )
    checkpoint_frequency: Size = Field(
        1, description="Epochs between checkpoints.", json_schema_extra=NOT_HASHED
    )
    max_checkpoints_to_keep: Size = Field(
        3, description="Epoch checkpoints kept, the newest.", json_schema_extra=NOT_HASHED
    )
    report_to: Literal["none", "tensorboard", "wandb", "trackio", "mlflow"] = Field(
        "none", description="Tracker, through accelerate.", json_schema_extra=NOT_HASHED
    )

    @property
    def epochs_on_proxy(self) -> int:
        """How long the proxy phase of a two-phase strategy is."""
        return self.epochs if self.proxy_epochs is None else self.proxy_epochs

    @property
    def epochs_on_outcome(self) -> int:
        """How long the main phase of a two-phase strategy is."""
        return self.epochs if self.outcome_epochs is None else self.outcome_epochs
