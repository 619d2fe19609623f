"""The typed content of a recipe: everything that decides what a pre-training run computes.

Defaults are the corrected method; ``deri-reference.yaml`` sets every switch back to the released behaviour
(the flaws are listed in ``docs/recipes.md``). All sections are frozen and refuse unknown keys.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """Base of all recipe sections: immutable, unknown keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Signal(Section):
    """How a stored recording becomes model input. Part of the model: inference must repeat it."""

    fs: float = Field(500.0, gt=0, description="sampling rate of the model input, Hz")
    samples: int = Field(5000, ge=64, description="length of the model input, samples")
    normalise: Literal["millivolt", "minmax"] = Field(
        "millivolt", description="millivolt: per-lead mean removed, mV kept; minmax: one min–max per record"
    )
    lead_order: Literal["canonical", "mimic"] = Field(
        "canonical",
        description="mimic: aVF before aVL, as MIMIC-IV-ECG stores them and the released code feeds them",
    )


class Text(Section):
    """The text encoder and how its features are used."""

    encoder: str = Field("medcpt", description="medcpt | minilm | a registered one | a hub id | a directory")
    pooling: Literal["cls", "mean", "pooler"] = "cls"
    max_tokens: int | None = Field(
        None,
        ge=2,
        description="longer texts are cut here; null: whole texts, in windows of the encoder's limit",
    )
    train_layers: int = Field(0, ge=-1, description="top layers that are trained; 0 frozen, -1 all")
    frozen_dropout: bool = Field(False, description="released flaw: dropout noise in the frozen encoder")
    pad_to_max: bool = Field(False, description="pad every text to max_tokens, as the released code does")
    cache_dtype: Literal["float16", "float32"] = "float16"

    @model_validator(mode="after")
    def _consistent(self) -> Text:
        if self.pad_to_max and self.max_tokens is None:
            raise ValueError("pad_to_max needs max_tokens")
        return self

    @property
    def cacheable(self) -> bool:
        """Whether the features of a text never change during training, so that they can be computed once."""
        return self.train_layers == 0 and not self.frozen_dropout


class Views(Section):
    """The RME module (random masking enhancement): two masked views of the ECG tokens."""

    mask_ratio: float = Field(0.5, gt=0, lt=1, description="share of tokens hidden in each view")
    order: Literal["ordered", "shuffled"] = Field(
        "ordered",
        description="shuffled: kept tokens stay in random order, so positions mean nothing (released)",
    )
    heads: int = Field(2, ge=1)


class Decoder(Section):
    """The two cross-modal decoders of mutual feature reconstruction."""

    depth: int = Field(2, ge=1)
    heads: int = Field(8, ge=1)
    head_dim: int = Field(64, ge=1)
    hidden: int = Field(256, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    drop_path: float = Field(0.1, ge=0, lt=1, description="stochastic depth of the last block")


class Inference(Section):
    """Which embeddings answer a question after training."""

    normalise_tokens: bool = Field(True, description="as in training; the released code does not")
    text: Literal["mixed", "aligned"] = Field("mixed", description="what zero-shot compares the mixed ECG with")


class Model(Section):
    """The network. Together with ``Signal`` and ``Text`` this is what ``config.json`` of a model holds."""

    family: str = Field("deri", description="deri | merl | a registered one")
    backbone: str = Field(
        "resnet18", description="resnet18 … 101, vit_tiny … base, beat_resnet18, beat_resnet34, or a registered one"
    )
    base_width: int = Field(64, ge=4, description="ResNet: channels of the first stage")
    dim: int = Field(256, ge=8, description="width d of tokens and embeddings")
    token_stride: int | None = Field(
        None, ge=1, description="stride of the 1×1 token convolution; null: 3 for DERI on a ResNet, else 1"
    )
    heads: int = Field(4, ge=1, description="heads of the token attention")
    text_positions: int = Field(256, ge=2, description="learned positions of the text→ECG decoder")
    view_dropout: float = Field(0.1, ge=0, lt=1, description="MERL: dropout that makes its two views")
    init: Literal["default", "released"] = Field(
        "default", description="initial weights; released: wide positions and separators, torch's own convolutions"
    )
    measurements: bool = Field(False, description="a linear map reads intervals and amplitudes from the embedding")
    mask_padding: bool = Field(True, description="keep padding out of attention and means; the released code does not")
    signal: Signal = Signal()
    text: Text = Text()
    views: Views = Views()
    decoder: Decoder = Decoder()
    inference: Inference = Inference()

    @model_validator(mode="after")
    def _divisible(self) -> Model:
        for what, heads in (("heads", self.heads), ("views.heads", self.views.heads)):
            if self.dim % heads:
                raise ValueError(f"dim {self.dim} is not divisible by {what} {heads}")
        return self


class Objective(Section):
    """Weights and switches of the terms. A weight of 0 logs a term without training on it."""

    temperature: float = Field(0.07, gt=0, description="of every term")
    alignment: float = Field(1.0, ge=0)
    mixed_alignment: float = Field(1.0, ge=0)
    view_contrast: float = Field(1.0, ge=0)
    ecg_reconstruction: float = Field(1.0, ge=0)
    text_reconstruction: float = Field(1.0, ge=0)
    measurements: float = Field(
        0.0, ge=0, description="intervals and amplitudes read from the embedding; needs model.measurements"
    )
    terms: dict[str, Annotated[float, Field(ge=0)]] = Field({}, description="weights of terms from other packages")
    duplicates: Literal["ignore", "negative", "positive"] = Field(
        "ignore",
        description="pairs that share their report: left out of the denominator, negatives (released), or positives",
    )
    shared: Literal["text", "findings"] = Field(
        "text",
        description="which pairs share one: equal texts, or a text that names no finding beyond the other's report",
    )

    @model_validator(mode="before")
    @classmethod
    def _without_removed_keys(cls, content: Any) -> Any:
        # Recipes of saved runs and models hold them.
        removed = {"loss": "info_nce", "train_temperature": False}
        if not isinstance(content, dict):
            return content
        for key, only in removed.items():
            if content.get(key, only) != only:
                raise ValueError(f"{key}={content[key]} exists no longer; remove the key ({only} is what is left)")
        return {key: value for key, value in content.items() if key not in removed}


class Augment(Section):
    """Random changes of the ECGs of a training batch; none by default. In mV, so that ``minmax`` refuses them.

    Each is drawn anew for every recording and step: a *largest* value is the end of a uniform range from 0.
    """

    lead_dropout: float = Field(
        0.0, ge=0, le=1, description="share of recordings that lose leads: all but one to eleven of them become zero"
    )
    gain: float = Field(0.0, ge=0, lt=1, description="largest relative change of the amplitude, either way")
    wander: float = Field(0.0, ge=0, description="largest amplitude of baseline wander (0.05–0.5 Hz), mV, per lead")
    noise: float = Field(0.0, ge=0, description="largest standard deviation of white noise, mV, per lead")
    mains: float = Field(0.0, ge=0, description="largest amplitude of mains hum (50 or 60 Hz), mV, per lead")
    filters: float = Field(
        0.0, ge=0, le=1, description="share of recordings that pass a high-pass (0.05–0.7 Hz) and low-pass (15–150 Hz)"
    )

    @property
    def active(self) -> bool:
        """Whether anything is changed at all."""
        return any(getattr(self, name) > 0 for name in type(self).model_fields)


class Train(Section):
    """The optimisation."""

    epochs: int = Field(50, ge=1)
    batch_size: int = Field(512, ge=2, description="of all processes together")
    accumulate: int = Field(
        1, ge=1, description="parts of a batch that are computed one after the other, with the gradients of the whole"
    )
    checkpointing: bool = Field(
        False, description="compute the backbone's activations again in the backward pass instead of keeping them"
    )
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    schedule: Literal["cosine", "restarts", "constant"] = Field(
        "cosine",
        description="cosine: warm-up, then one cosine; restarts: cosine with warm restarts (released)",
    )
    warmup_steps: int = Field(500, ge=0, description="at most a tenth of the run is used")
    restart_steps: int = Field(5000, ge=1)
    min_lr: float = Field(1e-6, ge=0)
    clip_grad: float | None = Field(1.0, gt=0)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where the processor or GPU computes it fast, else fp16 on a GPU, fp32 on a CPU"
    )
    shuffle: Literal["epoch", "once"] = Field("epoch", description="once: the same batches every epoch (released)")
    sync_batchnorm: bool = Field(True, description="batch statistics over all processes")
    seed: int = Field(42, ge=0)
    checkpoint_steps: int = Field(500, ge=1)
    log_steps: int = Field(20, ge=1)
    prefetch: int = Field(2, ge=0, description="batches read ahead in a thread")
    timeout: float = Field(600.0, gt=0, description="seconds that processes wait for one that hangs")
    augment: Augment = Augment()
    statements: float = Field(
        0.0, ge=0, le=1, description="share of pairs whose text is one statement of the report, drawn anew each step"
    )
    class_texts: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of pairs whose text is a prompt of one of the record's classes, where a store has labels; "
        "then zero-shot has seen the classes",
    )
    mix: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (), description="share of each store in every batch, in the order of --data; the first one counts epochs"
    )


class Recipe(Section):
    """A whole pre-training recipe."""

    name: str = "deri"
    model: Model = Model()
    objective: Objective = Objective()
    train: Train = Train()

    @model_validator(mode="after")
    def _augmentable(self) -> Recipe:
        if self.train.augment.active and self.model.signal.normalise != "millivolt":
            raise ValueError("train.augment is in mV: it needs model.signal.normalise=millivolt")
        if self.objective.shared == "findings" and self.objective.duplicates == "negative":
            raise ValueError("objective.shared=findings needs objective.duplicates=ignore or positive")
        if self.objective.measurements and not self.model.measurements:
            raise ValueError("objective.measurements needs model.measurements=true")
        if self.train.statements + self.train.class_texts > 1:
            raise ValueError("train.statements and train.class_texts are shares of the same pairs: at most 1 together")
        if (self.train.statements or self.train.class_texts) and (
            self.objective.shared != "findings" or not self.model.text.cacheable
        ):
            raise ValueError(
                "train.statements and train.class_texts need objective.shared=findings (one statement holds for many "
                "ECGs) and a frozen text encoder without dropout"
            )
        return self
