"""``ReportWriter``: an ECG encoder, a decoder and a tokenizer that together write reports; and their directory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from deri._version import __version__
from deri.errors import DeriError
from deri.evaluation.features import embed_store
from deri.generation.config import Decoding, WriterConfig, build_config
from deri.generation.data import asked_languages, untagged
from deri.generation.decode import decode
from deri.generation.decoders import rebuild_decoder
from deri.generation.decoders.base import ReportDecoder
from deri.generation.memory import Memory, memory_shape, read_memory, signal_memory
from deri.generation.review import Confidence, ReviewedReport, calibrate
from deri.generation.tokenizer import ReportTokenizer
from deri.models import EcgTextModel, load_model
from deri.models.base import Unusable, window_batches
from deri.models.calibration import encoder_digest
from deri.models.device import choose_device
from deri.models.directory import (
    WRITER,
    find,
    load_weights,
    new_folder,
    read_manifest,
    read_weights,
    save,
    weights_of,
)
from deri.models.directory import card as model_card
from deri.progress import SILENT, Progress
from deri.remote import is_address, saving
from deri.store import Store

if TYPE_CHECKING:
    from typing_extensions import Self

    from deri.ecg import ECG

ENCODER_DIR = "encoder"
CONFIDENCE_FILE = "confidence.json"
_OF_TEXTS = ("log_probs", "finished", "n_tokens")


@dataclass
class Generated:
    """Reports of n ECGs.

    Attributes:
        texts: the reports.
        log_probs: (n,) float64, log-probability (nats) of each text and its end under the writer.
        finished: (n,) bool, False where the longest length came before the end.
        n_tokens: (n,) int64, tokens written, the end included.
        record: (n,) int64, position of the recording that each is of; None for rows of a store.
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
    def join(cls, parts: Iterable[Generated]) -> Generated:
        """Several as one, in their order."""
        parts = list(parts) or [cls()]
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _OF_TEXTS}
        return cls([text for part in parts for text in part.texts], **joined)

    def take(self, order: np.ndarray) -> Generated:
        """The texts at the positions ``order``, without what is known of recordings."""
        taken = {name: getattr(self, name)[order] for name in _OF_TEXTS}
        return Generated([self.texts[i] for i in order], **taken)


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
        if self._confidence is None:
            if self.directory is None:
                raise DeriError(
                    "the writer has no confidence: set writer.confidence = calibrate(writer.encoder, store)"
                )
            self._confidence = Confidence.load(self.directory / CONFIDENCE_FILE, digest=encoder_digest(self.encoder))
        return self._confidence

    @confidence.setter
    def confidence(self, value: Confidence) -> None:
        self._confidence = value

    @property
    def calibrated(self) -> bool:
        """Whether there is a :attr:`confidence`."""
        there = self.directory is not None and (self.directory / CONFIDENCE_FILE).is_file()
        return there or self._confidence is not None

    @property
    def device(self) -> torch.device:
        """Where the encoder is, and the decoder beside it."""
        return self.encoder.device

    def to(self, device: str | torch.device) -> Self:
        """Move encoder and decoder."""
        self.encoder.to(device)
        self.decoder.to(device)
        return self

    @property
    def languages(self) -> list[str]:
        """The languages of its training reports, the commonest first; of several it writes the one asked for."""
        return list(self.about.get("languages", ()))

    def _start(self, language: str | None) -> list[int]:
        """The tokens that a text in ``language`` begins with; none where the writer is to choose, or knows only one.

        Raises:
            DeriError: no language of the training reports.
        """
        if language is None:
            return []
        if language not in self.languages:
            known = ", ".join(self.languages) or "none by name"
            raise DeriError(f"language {language!r}: the writer's training reports are in another (it knows {known})")
        return self.tokenizer.encode(f"{language}:")[:-1] if len(self.languages) > 1 else []

    # --- writing ---------------------------------------------------------------------------------------------------

    def write(self, ecgs: ECG | Iterable[ECG], **options: Any) -> list[str]:
        """The reports of recordings of any rate, in their order; of a long one its beginning alone.

        Options as in :meth:`generate`, ``windows`` among them.
        """
        return self.generate(ecgs, **options).texts

    def review(self, ecgs: ECG | Iterable[ECG], **options: Any) -> list[ReviewedReport]:
        """Reports, each with its findings held against the ECG model's own scores of the same stretch of the recording.

        Options as in :meth:`generate`.

        Raises:
            DeriError: the writer has no :attr:`confidence`.
        """
        confidence = self.confidence
        found = self.generate(ecgs, embeddings=True, **options)
        assert found.embedding is not None
        return [
            ReviewedReport(
                text,
                float(log_prob),
                bool(finished),
                confidence.check(embedding, text),
                confidence.left_out(embedding, text),
            )
            for text, log_prob, finished, embedding in zip(
                found.texts, found.log_probs, found.finished, found.embedding, strict=True
            )
        ]

    def generate(
        self,
        ecgs: ECG | Iterable[ECG],
        *,
        windows: int | None = 1,
        batch_size: int = 32,
        seed: int = 0,
        embeddings: bool = False,
        unusable: Unusable | None = None,
        language: str | None = None,
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
            unusable: takes the position of a recording that cannot be used, and its error, instead of raising it.
            language: one of :attr:`languages`; None: the writer chooses.
            options: other than the config's: beams, length_penalty, no_repeat_ngram, repetition_penalty,
                max_tokens, sample, temperature, top_p.

        Raises:
            ReadError: a recording cannot be used.
        """
        parts: list[tuple[np.ndarray, ...]] = []

        def memories() -> Iterator[Memory]:
            for batch in window_batches(ecgs, self.encoder.config.signal, windows, batch_size, unusable):
                vectors = (self.encoder.embed_signals(*batch.content),) if embeddings else ()
                parts.append((batch.record, batch.start, *vectors))
                yield signal_memory(self.encoder, *batch.content, self.config.memory)

        generated = Generated.join(self._write(memories(), seed, language, options))
        if not parts:
            parts.append((np.zeros(0, np.int64), np.zeros(0), np.zeros((0, self.encoder.config.dim), np.float32)))
        record, start, *vectors = map(np.concatenate, zip(*parts, strict=True))
        return replace(generated, record=record, start=start, embedding=vectors[0] if embeddings else None)

    def generate_store(
        self,
        store: Store,
        rows: np.ndarray,
        *,
        batch_size: int = 64,
        seed: int = 0,
        embeddings: bool = False,
        progress: Progress = SILENT,
        language: str | None = None,
        **options: Any,
    ) -> Generated:
        """Reports of rows of a store, in their order; options as in :meth:`generate`.

        ``language`` may also be ``"reference"``: that of each row's own report, as a fair comparison with it asks for.
        """
        asked = asked_languages(store, rows, language)
        if language == "reference":
            asked = [name if name in self.languages else None for name in asked]
        parts: list[Generated] = []
        places: list[np.ndarray] = []
        for wanted in dict.fromkeys(asked):
            at = np.flatnonzero(np.array(asked, dtype=object) == wanted)
            batches = [at[i : i + batch_size] for i in range(0, len(at), batch_size)]
            memories = (read_memory(self.encoder, store, rows[batch], self.config.memory) for batch in batches)
            for batch, part in zip(batches, self._write(memories, seed, wanted, options), strict=True):
                parts.append(part)
                places.append(batch)
                progress.update(sum(map(len, parts)), len(rows))
        order = np.argsort(np.concatenate(places)) if places else np.zeros(0, np.int64)
        embedding = embed_store(self.encoder, store, rows, batch_size=batch_size) if embeddings else None
        return replace(Generated.join(parts).take(order), embedding=embedding)

    def _write(
        self, memories: Iterable[Memory], seed: int, language: str | None, options: dict[str, Any]
    ) -> Iterator[Generated]:
        """The reports of each batch of memories; one generator draws for all of them."""
        decoding, start = self.config.decoding(**options), self._start(language)
        generator = torch.Generator().manual_seed(seed)
        return (self.generate_memory(memory, mask, decoding, generator, start) for memory, mask in memories)

    def generate_memory(
        self,
        memory: Tensor,
        mask: Tensor | None,
        options: Decoding,
        generator: torch.Generator | None = None,
        start: Sequence[int] = (),
    ) -> Generated:
        """Reports from memories (B, m, d) of :func:`deri.generation.memory.memory_of`, behind the tokens ``start``."""
        self.decoder.eval()
        options = options.model_copy(update={"max_tokens": max(1, options.max_tokens - len(start))})
        special = {self.tokenizer.bos, self.tokenizer.pad} - {self.tokenizer.eos}
        found = decode(
            self.decoder,
            memory.float(),
            mask,
            eos=self.tokenizer.eos,
            options=options,
            banned=sorted(special),
            start=start,
            generator=generator,
        )
        return Generated(
            [untagged(self.tokenizer.decode(ids)) for ids in found.ids],
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
        if is_address(directory):
            with saving(directory) as local:
                return self.save_pretrained(local, card=card)
        folder = new_folder(WRITER, directory)
        if encoder or not (folder / ENCODER_DIR / "config.json").is_file():
            self.encoder.save_pretrained(folder / ENCODER_DIR)
        names = self.tokenizer.save(folder)
        if self._confidence is not None:
            self._confidence.save(folder / CONFIDENCE_FILE)
        content = {
            "deri_version": __version__,
            "writer": self.config.portable().model_dump(),
            "memory_shape": list(memory_shape(self.encoder, self.config.memory)),
            "decoder": self.decoder.architecture(),
            **self.about,
        }
        save(WRITER, folder, weights_of(self.decoder), content, files=names, card=card or self._card())

    @classmethod
    def from_pretrained(cls, name: str | Path, *, device: str | None = "cpu") -> ReportWriter:
        """Load a writer directory, the run that holds one, one at an address, or a hub id; in eval mode.

        Raises:
            DeriError: there is none, or it is broken or of another version.
        """
        directory = find(WRITER, name)
        content = read_manifest(WRITER, directory)
        config = build_config(content["writer"], str(directory / "config.json"))
        encoder = load_model(directory / ENCODER_DIR)
        shape = memory_shape(encoder, config.memory)
        if list(shape) != content["memory_shape"]:
            raise DeriError(
                f"{directory / ENCODER_DIR} gives memories of shape {shape}, the writer was trained on "
                f"{tuple(content['memory_shape'])}: it is not the writer's encoder, copy the directory again"
            )
        expected = content.get("encoder", {}).get("digest")
        if expected is not None and encoder_digest(encoder) != expected:
            raise DeriError(
                f"{directory / ENCODER_DIR} is not the encoder that the writer was trained with (another digest): copy "
                "the directory again"
            )
        decoder = rebuild_decoder(config, shape, content["decoder"])
        load_weights(decoder, read_weights(WRITER, directory), directory / WRITER.weights)
        tokenizer = ReportTokenizer.load(directory)
        known = ("format", "version", "deri_version", "writer", "memory_shape", "decoder")
        about = {key: value for key, value in content.items() if key not in known}
        decoder.eval()
        writer = cls(config, encoder, decoder, tokenizer, about).to(choose_device(device))
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
        text = f"""Writer `{config.portable().writer}`, memory `{config.memory}`, encoder {config.encoder}. {trained}
```python
import deri
writer = deri.ReportWriter.from_pretrained("DIRECTORY")
writer.write([deri.read_ecg("record.hea")])
```

Its texts are drafts in the wording of its training reports. They can be wrong, and sound sure when they are.
For research only. It is not a medical device, and nothing it writes is a diagnosis."""
        return model_card("ECG report writer", ["ecg", "electrocardiogram", "report-generation"], text)


def calibrate_directory(
    directory: str | Path, store: Store, *, split: str = "val", device: str | None = "cpu", progress: Progress = SILENT
) -> Confidence:
    """Calibrate the writer in ``directory`` and put ``confidence.json`` beside its weights."""
    if is_address(directory):
        raise DeriError(f"{directory}: confidence.json is written beside the weights of a writer; copy it here first")
    directory = find(WRITER, directory)
    writer = ReportWriter.from_pretrained(directory, device=device)
    language = "reference" if len(writer.languages) > 1 else None

    def drafts(rows: np.ndarray) -> list[str]:
        return writer.generate_store(store, rows, language=language, progress=progress).texts

    confidence = calibrate(writer.encoder, store, split=split, drafts=drafts, progress=progress)
    confidence.save(directory / CONFIDENCE_FILE)
    return confidence
