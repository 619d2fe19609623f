"""What decides how a report writer is built, trained and asked: typed, frozen, unknown keys refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError, model_validator

from deri.errors import DeriError
from deri.generation.decoders import DECODERS, split_writer
from deri.recipes.load import explain, parse_overrides
from deri.recipes.schema import Section

if TYPE_CHECKING:
    from deri.generation.decoders.base import ReportDecoder

MemoryKind = Literal["tokens", "mixed", "aligned"]


class LoRA(Section):
    """Low-rank adapters in all linear layers of a prefix writer's language model (Hu et al. 2021)."""

    rank: int = Field(8, ge=1)
    alpha: int = Field(16, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)


class Network(Section):
    """Size of a decoder that is trained from scratch. Null: the writer's own (docs/report-generation.md)."""

    width: int | None = Field(None, ge=8)
    layers: int | None = Field(None, ge=1)
    heads: int | None = Field(None, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    vocabulary: int = Field(4000, ge=300, le=4000, description="largest size of a tokenizer that is trained here")
    slots: int = Field(3, ge=1, description="r2gen: rows of the relational memory")


class WriterConfig(Section):
    """A report writer: what writes, from which memory of the ECG, how it is trained and decoded."""

    writer: str = Field(
        "scratch", min_length=1, description="scratch | r2gen | GPT-2 id or directory | prefix:ID or DIR"
    )
    tokenizer: str | None = Field(
        None, description="r2gen: scratch | medcpt | pubmedbert | scibert | clinicalbert | minilm | hub id | directory"
    )
    memory: MemoryKind = "tokens"
    encoder: Literal["frozen", "tuned"] = "frozen"
    lora: LoRA | None = Field(None, description="prefix writers: train adapters instead of the language model")
    train_lm: bool = Field(
        True, description="prefix writers without LoRA: train the language model, not the prefix alone"
    )
    prefix_tokens: int = Field(10, ge=1, description="prefix writers: soft vectors before the text")
    network: Network = Network()
    keep_stamps: bool = Field(False, description="train on reports with the stamps of devices and editors")
    max_tokens: int = Field(256, ge=2, description="longest report with tag and end; in training the rest is cut off")
    epochs: int = Field(10, ge=1)
    batch_size: int = Field(32, ge=1, description="reports in a micro-batch")
    accumulate: int = Field(1, ge=1, description="micro-batches per step")
    lr: float | None = Field(None, gt=0, description="null: 1e-3; prefix writers 2e-4; r2gen 3e-4")
    encoder_lr: float = Field(0.3, gt=0, description="of a tuned encoder, as a multiple of lr")
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.05, ge=0, le=0.5, description="share of the steps in which lr rises")
    min_lr: float = Field(0.01, ge=0, le=1, description="lr at the end, as a multiple of lr")
    clip_grad: float = Field(1.0, gt=0)
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 where the device is fast in it")
    seed: int = Field(42, ge=0)
    checkpoint_steps: int = Field(500, ge=1)
    log_steps: int = Field(50, ge=1)
    prefetch: int = Field(2, ge=0, description="batches read ahead in a thread")
    shard: bool = Field(
        False, description="under torchrun: each process keeps a part of the decoder's weights (FSDP), for large ones"
    )
    cache: str | None = Field(None, description="folder of cached memories, for several runs; null: in the run")
    beams: int = Field(3, ge=1)
    length_penalty: float = Field(1.0, description="a beam's log-probability is divided by length ** this")
    no_repeat_ngram: int = Field(0, ge=0, description="no n tokens occur twice in a report; 0: off")
    repetition_penalty: float = Field(1.0, gt=0, description="above 1: tokens that were used become less likely")

    @model_validator(mode="after")
    def _consistent(self) -> WriterConfig:
        if self.writer.endswith(":"):
            raise ValueError(f"writer {self.writer} needs a language model behind the colon, a hub id or a directory")
        if self.shard and self.encoder == "tuned":
            raise ValueError("shard=true splits the decoder alone: train a tuned encoder without it")
        if self.lora is not None and "lora" not in self.decoder.options:
            raise ValueError(f"lora is for prefix writers (writer=prefix:ID), not for writer {self.writer!r}")
        if self.tokenizer is not None and "tokenizer" not in self.decoder.options:
            raise ValueError(f"tokenizer is for writer r2gen; {self.writer!r} brings its own")
        return self

    @property
    def decoder(self) -> type[ReportDecoder]:
        """What writes the tokens."""
        return DECODERS[split_writer(self.writer)[0]]

    @property
    def source(self) -> str:
        """The hub id or directory of a writer that starts from a language model."""
        return split_writer(self.writer)[1]

    @property
    def learning_rate(self) -> float:
        """``lr``, or the writer's default."""
        return self.lr if self.lr is not None else self.decoder.default_lr

    def portable(self) -> WriterConfig:
        """The same without paths of this machine, which mean nothing where the writer is taken."""
        decoder, source = split_writer(self.writer)
        changes: dict[str, Any] = {"cache": None, "shard": False}
        if (name := name_of(source)) != source:
            changes["writer"] = f"{decoder}:{name}"
        if self.tokenizer is not None:
            changes["tokenizer"] = name_of(self.tokenizer)
        return self.model_copy(update=changes)

    def decoding(self, **changes: Any) -> Decoding:
        """How this writer is decoded, with ``changes`` that are not None."""
        own = self.model_dump(include=set(Decoding.model_fields))
        given = {name: value for name, value in changes.items() if value is not None}
        if (own | given).get("sample"):
            own["beams"] = 1
        try:
            return Decoding.model_validate(own | given)
        except ValidationError as error:
            raise DeriError(f"decoding: {explain(error, Decoding)}") from None


class Decoding(Section):
    """How a text is searched for: beams (1: greedy), or sampling."""

    beams: int = Field(3, ge=1)
    length_penalty: float = 1.0
    no_repeat_ngram: int = Field(0, ge=0)
    repetition_penalty: float = Field(1.0, gt=0)
    max_tokens: int = Field(256, ge=1)
    sample: bool = False
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _consistent(self) -> Decoding:
        if self.sample and self.beams > 1:
            raise ValueError("sampling takes beams=1: beams look for the likeliest text")
        return self


def name_of(source: str) -> str:
    """A hub id or built-in name as it is; of a directory of this machine the last part alone."""
    path = Path(source).expanduser()
    own = path.is_absolute() or source.startswith(".") or path.exists()
    return path.resolve().name if own else source


def load_config(overrides: Iterable[str] = (), **fields: Any) -> WriterConfig:
    """A config from ``KEY=VALUE`` texts, over ``fields`` that are not None.

    Raises:
        DeriError: an unknown key (with the nearest known one) or a value out of range.
    """
    content = {name: value for name, value in fields.items() if value is not None}
    for name, value in parse_overrides(overrides).items():
        old = content.get(name)
        content[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return build_config(content, "report train")


def build_config(content: Mapping[str, Any], source: str) -> WriterConfig:
    """Validate ``content``; ``source`` names it in an error."""
    try:
        return WriterConfig.model_validate(content)
    except ValidationError as error:
        raise DeriError(f"{source}: {explain(error, WriterConfig)}") from None
