"""``ReportWriter``: an ECG encoder, a decoder and a tokenizer that together write reports; and their directory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deri._version import __version__
from deri.errors import DeriError
from deri.files import atomic_path, write_json, write_text
from deri.generation.base import ReportDecoder
from deri.generation.build import rebuild_decoder
from deri.generation.config import Decoding, WriterConfig, build_config
from deri.generation.decode import decode
from deri.generation.memory import memory_shape, read_memory, signal_memory
from deri.generation.tokenizer import ReportTokenizer
from deri.models import EcgTextModel, load_model
from deri.models.base import window_batches
from deri.models.directory import hub_snapshot, load_weights
from deri.store import Store

if TYPE_CHECKING:
    from typing_extensions import Self

    from deri.ecg import ECG
    from deri.generation.confidence import Confidence, Reviewed

FORMAT = "deri-report-writer"
VERSION = 2
"""2: the memory ``tokens`` holds the tokens before token attention."""
ENCODER_DIR = "encoder"
CONFIDENCE_FILE = "confidence.json"
Show = Callable[[int, int], None]


@dataclass
class Generated:
    """Reports of n ECGs.

    Attributes:
        texts: the reports.
        log_probs: (n,) float64, log-probability (nats) of each text and its end under the writer.
        finished: (n,) bool, False where the longest length came before the end.
        n_tokens: (n,) int64, tokens written, the end included.
        record: (n,) int64, position of the recording that each is of; None where signals were given.
        start: (n,) where in the recording its window begins, s; None as ``record``.
        embedding: (n, d) float32, L2-normalised, of the same windows; None where none were asked for.
    """

    texts: list[str] = field(default_factory=list)
    log_probs: np.ndarray = field(default_factory=lambda: np.zeros(0))
    finished: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    n_tokens: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    record: np.ndarray | None = None
    start: np.ndarray | None = None
    embedding: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.texts)

    @classmethod
    def join(cls, parts: Sequence[Generated]) -> Generated:
        """Several as one, in their order."""
        if not parts:
            return cls()
        return cls(
            [text for part in parts for text in part.texts],
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("log_probs", "finished", "n_tokens")
            ),
        )


class ReportWriter:
    """Writes the report of an ECG: a draft in the wording of the reports it was trained on; never a diagnosis.

    Attributes:
        config: what it is and how it was trained.
        encoder: the ECG model whose features it reads.
        decoder: writes tokens from them.
        tokenizer: tokens to text.
        about: provenance: store, model, digest of the encoder, validation loss …
    """

    def __init__(
        self,
        config: WriterConfig,
        encoder: EcgTextModel,
        decoder: ReportDecoder,
        tokenizer: ReportTokenizer,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.config = config
        self.encoder = encoder
        self.decoder = decoder
        self.tokenizer = tokenizer
        self.about = about or {}
        self.directory: Path | None = None  # where it was loaded from
        self._confidence: Confidence | None = None

    @property
    def confidence(self) -> Confidence:
        """What tells which findings the ECG model doubts; read from ``confidence.json`` of the writer's directory.

        Raises:
            DeriError: there is none (``deri report calibrate`` makes it), or it belongs to another encoder.
        """
        from deri.evaluation.features import encoder_digest
        from deri.generation.confidence import Confidence

        if self._confidence is None:
            if self.directory is None:
                raise DeriError("the writer has no confidence: set writer.confidence = calibrate(writer, store)")
            self._confidence = Confidence.load(self.directory / CONFIDENCE_FILE, digest=encoder_digest(self.encoder))
        return self._confidence

    @confidence.setter
    def confidence(self, value: Confidence) -> None:
        self._confidence = value

    @property
    def device(self) -> torch.device:
        """Where the encoder is, and the decoder beside it."""
        return self.encoder.device

    def to(self, device: str | torch.device) -> Self:
        """Move encoder and decoder."""
        self.encoder.to(device)
        self.decoder.to(device)
        return self

    # --- writing ---------------------------------------------------------------------------------------------------

    def write(self, ecgs: ECG | Iterable[ECG], **options: Any) -> list[str]:
        """The reports of recordings of any rate, in their order; of a long one its beginning alone.

        Options as in :meth:`generate`, ``windows`` among them.
        """
        return self.generate(ecgs, **options).texts

    def review(self, ecgs: ECG | Iterable[ECG], **options: Any) -> list[Reviewed]:
        """Reports, each with its findings held against the ECG model's own scores of the same stretch of the recording.

        Options as in :meth:`generate`.

        Raises:
            DeriError: the writer has no :attr:`confidence`.
        """
        from deri.generation.confidence import review

        return review(self, ecgs, **options)

    def write_signals(
        self,
        signals: np.ndarray,
        fs: float,
        valid_samples: np.ndarray | None = None,
        lead_mask: np.ndarray | None = None,
        **options: Any,
    ) -> list[str]:
        """The reports of standardised signals; see :meth:`generate_signals`."""
        return self.generate_signals(signals, fs, valid_samples, lead_mask, **options).texts

    def generate(
        self,
        ecgs: ECG | Iterable[ECG],
        *,
        windows: int | None = 1,
        batch_size: int = 32,
        seed: int = 0,
        embeddings: bool = False,
        **options: Any,
    ) -> Generated:
        """Reports of recordings with their log-probabilities. No recording gives no report.

        Args:
            ecgs: one recording or several of any rate; a shorter one than the encoder's length is padded. From an
                iterator, one after the other is in memory.
            windows: reports of a recording that is longer: one for each of so many windows of the encoder's length,
                spread evenly; 1: of its beginning alone, None: of all windows. ``record`` and ``start`` of the result
                tell which is which.
            batch_size: windows at once.
            seed: of the draws where ``sample=True``.
            embeddings: also give the encoder's embedding of each window, from the same reading of the recordings.
            options: other than the config's: beams, length_penalty, no_repeat_ngram, repetition_penalty, max_tokens,
                sample, temperature, top_p.

        Raises:
            ReadError: a recording cannot be used.
        """
        signal = self.encoder.config.signal
        parts: list[tuple[np.ndarray, ...]] = []

        def memories() -> Iterator[tuple[Tensor, Tensor | None]]:
            for batch in window_batches(ecgs, signal, windows, batch_size):
                content = batch.signals, signal.fs, batch.valid_samples, batch.lead_mask
                vectors = (self.encoder.embed_signals(*content),) if embeddings else ()
                parts.append((batch.record, batch.start, *vectors))
                yield signal_memory(self.encoder, *content, self.config.memory)

        generated = self._all(memories(), 0, self.config.decoding(**options), seed, None)
        if not parts:
            parts.append((np.zeros(0, np.int64), np.zeros(0), np.zeros((0, self.encoder.config.dim), np.float32)))
        record, start, *vectors = map(np.concatenate, zip(*parts, strict=True))
        return replace(generated, record=record, start=start, embedding=vectors[0] if embeddings else None)

    def generate_signals(
        self,
        signals: np.ndarray,
        fs: float,
        valid_samples: np.ndarray | None = None,
        lead_mask: np.ndarray | None = None,
        *,
        batch_size: int = 32,
        seed: int = 0,
        **options: Any,
    ) -> Generated:
        """Reports of signals that are standardised already; for the rest see :meth:`generate`.

        Args:
            signals: (B, 12, n) mV, canonical leads, finite.
            fs: their sampling rate, Hz.
            valid_samples: (B,) samples before padding.
            lead_mask: (12,) or (B, 12) bool, False for a lead that was not recorded: it is zeroed.
            batch_size: recordings at once.
            seed: of the draws.
            options: see :meth:`generate`.
        """
        signals = np.asarray(signals, np.float32)
        if signals.ndim != 3 or signals.shape[1] != 12:
            raise DeriError(f"signals have shape {signals.shape}; expected (recordings, 12 leads, samples)")
        kept = None
        if lead_mask is not None:
            kept = np.broadcast_to(np.asarray(lead_mask, bool), signals.shape[:2])
            signals = np.where(kept[:, :, None], signals, np.float32(0))

        def read(part: slice) -> tuple[Tensor, Tensor | None]:
            valid = None if valid_samples is None else np.asarray(valid_samples)[part]
            mask = None if kept is None else kept[part]
            return signal_memory(self.encoder, signals[part], fs, valid, mask, self.config.memory)

        parts = [slice(i, i + batch_size) for i in range(0, len(signals), batch_size)]
        return self._all(map(read, parts), len(signals), self.config.decoding(**options), seed, None)

    def generate_store(
        self,
        store: Store,
        rows: np.ndarray,
        *,
        batch_size: int = 64,
        seed: int = 0,
        show: Show | None = None,
        **options: Any,
    ) -> Generated:
        """Reports of rows of a store, in their order; options as in :meth:`generate`, ``show(done, total)``."""
        parts = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        memories = (read_memory(self.encoder, store, part, self.config.memory) for part in parts)
        return self._all(memories, len(rows), self.config.decoding(**options), seed, show)

    def _all(
        self,
        memories: Iterator[tuple[Tensor, Tensor | None]],
        total: int,
        options: Decoding,
        seed: int,
        show: Show | None,
    ) -> Generated:
        generator = torch.Generator().manual_seed(seed)
        parts: list[Generated] = []
        with torch.inference_mode():
            for memory, mask in memories:
                parts.append(self.generate_memory(memory, mask, options, generator))
                if show:
                    show(sum(map(len, parts)), total)
        return Generated.join(parts)

    def generate_memory(
        self, memory: Tensor, mask: Tensor | None, options: Decoding, generator: torch.Generator | None = None
    ) -> Generated:
        """Reports from memories (B, m, d) that :func:`deri.generation.memory.memory_of` made."""
        self.decoder.eval()
        special = {self.tokenizer.bos, self.tokenizer.pad} - {self.tokenizer.eos}
        found = decode(
            self.decoder,
            memory.float(),
            mask,
            eos=self.tokenizer.eos,
            options=options,
            banned=sorted(special),
            generator=generator,
        )
        return Generated(
            [self.tokenizer.decode(ids) for ids in found.ids],
            found.log_probs.numpy(),
            found.finished.numpy(),
            np.array([len(ids) for ids in found.ids], np.int64),
        )

    # --- files -----------------------------------------------------------------------------------------------------

    def save_pretrained(self, directory: str | Path, *, encoder: bool = True, card: str | None = None) -> None:
        """Write a writer directory that needs nothing else: config, weights, tokenizer, encoder, model card.

        Args:
            directory: new, or one whose files are to be replaced; each appears whole or not at all.
            encoder: False to leave the ECG encoder that lies there as it is.
            card: text of ``README.md``.
        """
        directory = Path(directory)
        if directory.is_file():
            raise DeriError(f"{directory} is a file; name a directory to save the writer in")
        directory.mkdir(parents=True, exist_ok=True)
        if encoder or not (directory / ENCODER_DIR / "config.json").is_file():
            self.encoder.save_pretrained(directory / ENCODER_DIR)
        self.tokenizer.save(directory)
        weights, _ = plain_weights(self.decoder)
        with atomic_path(directory / "model.safetensors") as path:
            save_file(weights, path, metadata={"format": "pt"})
        if self._confidence is not None:
            self._confidence.save(directory / CONFIDENCE_FILE)
        write_text(directory / "README.md", card or self._card())
        write_json(
            directory / "config.json",
            {
                "format": FORMAT,
                "version": VERSION,
                "deri_version": __version__,
                "writer": self.config.model_dump(),
                "memory_shape": list(memory_shape(self.encoder, self.config.memory)),
                "decoder": self.decoder.architecture(),
                **self.about,
            },
        )

    @classmethod
    def from_pretrained(cls, name: str | Path, *, device: str = "cpu") -> ReportWriter:
        """Load a writer directory, the run that holds one, or a hub id; in eval mode.

        Raises:
            DeriError: there is none, or it is broken or of another version.
        """
        directory = resolve_writer(name)
        content = read_writer_config(directory)
        config = build_config(content["writer"], str(directory / "config.json"))
        encoder = load_model(directory / ENCODER_DIR)
        shape = memory_shape(encoder, config.memory)
        if list(shape) != content["memory_shape"]:
            raise DeriError(
                f"{directory / ENCODER_DIR} gives memories of shape {shape}, the writer was trained on "
                f"{tuple(content['memory_shape'])}: it is not the writer's encoder, copy the directory again"
            )
        _check_encoder(directory, encoder, content)
        decoder = rebuild_decoder(config, shape, content["decoder"])
        path = directory / "model.safetensors"
        try:
            weights = load_file(path)
        except Exception as error:  # safetensors raises its own error type and OSError
            raise DeriError(f"{path} cannot be read ({error}); copy or train the writer again") from None
        _, tied = plain_weights(decoder)
        load_weights(decoder, weights, str(path), optional=tuple(tied))
        tokenizer = ReportTokenizer.load(directory)
        known = ("format", "version", "deri_version", "writer", "memory_shape", "decoder")
        about = {key: value for key, value in content.items() if key not in known}
        decoder.eval()
        writer = cls(config, encoder, decoder, tokenizer, about).to(device)
        writer.directory = directory
        return writer

    def _card(self) -> str:
        about, config = self.about, self.config
        trained = ""
        if "training" in about:
            t = about["training"]
            trained = (
                f"Trained on {t['records']:,} ECGs with reports; weights of epoch {t['epoch']}, held-out "
                f"cross-entropy {t['val_loss']:.4f} nats per token.\n"
            )
        return f"""---
library_name: deri
tags: [ecg, electrocardiogram, report-generation]
---

# ECG report writer

Writer `{config.writer}`, memory `{config.memory}`, encoder {config.encoder}. {trained}
```python
import deri
writer = deri.ReportWriter.from_pretrained("DIRECTORY")
writer.write([deri.read_ecg("record.hea")])
```

Its texts are drafts in the wording of its training reports. They can be wrong, and sound sure when they are.
For research only. It is not a medical device, and nothing it writes is a diagnosis.
Written by deri {__version__}.
"""


def plain_weights(module: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """Weights on the CPU, each once, and the names of those that share another's storage (a tied output layer)."""
    weights: dict[str, Tensor] = {}
    tied: list[str] = []
    seen: set[tuple[int, tuple[int, ...]]] = set()
    for name, value in module.state_dict().items():
        key = (value.data_ptr(), tuple(value.shape))
        if value.numel() and key in seen:
            tied.append(name)
            continue
        seen.add(key)
        weights[name] = value.detach().cpu().contiguous()
    return weights, tied


def resolve_writer(name: str | Path) -> Path:
    """The directory that holds the writer ``name``: itself, the ``writer`` folder of a run, or a hub download."""
    path = Path(name).expanduser()
    for candidate in (path, path / "writer"):
        if (candidate / "config.json").is_file():
            return candidate
    if path.exists():
        if (path / "run.json").is_file():
            raise DeriError(f"{path} is a run without a writer yet: finish it with deri report train --resume")
        raise DeriError(f"{path} holds no report writer (no config.json); make one with deri report train")
    text = str(name)
    if path.is_absolute() or text.startswith(".") or text.count("/") != 1:
        raise DeriError(f"writer {name}: no such directory or run; also accepted: a hub id OWNER/NAME")
    return hub_snapshot(f"writer {name}", text)


def read_writer_config(directory: Path) -> dict[str, Any]:
    """The ``config.json`` of a writer directory, checked for format and version."""
    path = directory / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DeriError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DeriError(f"{path} is not of a report writer (no format {FORMAT!r}); make one with deri report train")
    if content.get("version") != VERSION:
        raise DeriError(f"{path} is of writer format {content.get('version')}, this deri {__version__} reads {VERSION}")
    return content


def _check_encoder(directory: Path, encoder: EcgTextModel, content: dict[str, Any]) -> None:
    from deri.evaluation.features import encoder_digest

    expected = content.get("encoder", {}).get("digest")
    if expected is not None and encoder_digest(encoder) != expected:
        raise DeriError(
            f"{directory / ENCODER_DIR} is not the encoder that the writer was trained with (another digest): copy "
            "the directory again"
        )
