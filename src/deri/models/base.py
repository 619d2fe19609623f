"""What DERI and MERL share: backbone, text side, embeddings of recordings and texts, classification, files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn import functional as F

from deri.ahead import read_ahead
from deri.errors import DeriError, ReadError
from deri.models.backbones import BACKBONES
from deri.models.calibration import Calibration
from deri.models.device import to_device
from deri.models.head import Head
from deri.models.measurements import MeasurementHead
from deri.models.output import Output, TextFeatures
from deri.models.precision import Precision, autocast, choose_precision
from deri.models.preprocess import Preprocess
from deri.models.text import TextEncoder
from deri.recipes import schema
from deri.remote import saving
from deri.reports.words import label_texts

if TYPE_CHECKING:
    import pandas as pd
    from typing_extensions import Self

    from deri.ecg import ECG, Standardised


class WindowEmbeddings(NamedTuple):
    """What becomes of w windows of recordings.

    Attributes:
        record: (w,) position of each window's recording.
        start: (w,) where the window begins in it, in s.
        embedding: (w, d) float32, not normalised.
    """

    record: np.ndarray
    start: np.ndarray
    embedding: np.ndarray


def pool_windows(parts: Sequence[WindowEmbeddings], *, normalise: bool = True) -> np.ndarray:
    """Mean embedding of each recording over its windows: (n, d) float32, to unit length unless told otherwise."""
    record = np.concatenate([part.record for part in parts])
    total = np.zeros((int(record[-1]) + 1, parts[0].embedding.shape[1]))
    np.add.at(total, record, np.concatenate([part.embedding for part in parts]))
    mean = torch.from_numpy((total / np.bincount(record)[:, None]).astype(np.float32))
    return (F.normalize(mean, dim=-1) if normalise else mean).numpy()


class WindowBatch(NamedTuple):
    """Windows of recordings, as a model takes them.

    Attributes:
        record: (w,) int64, position of each window's recording.
        start: (w,) float64, where the window begins in it, in s.
        content: signals, rate, valid samples and lead mask: the arguments of :meth:`EcgEncoder.embed_signals`.
    """

    record: np.ndarray
    start: np.ndarray
    content: tuple[np.ndarray, float, np.ndarray, np.ndarray]


Unusable = Callable[[int, ReadError], None]
"""Receives the position of a recording that cannot be used, and why; it is then passed over."""


def window_batches(
    ecgs: ECG | Iterable[ECG],
    signal: schema.Signal,
    windows: int | None,
    batch_size: int,
    unusable: Unusable | None = None,
) -> Iterator[WindowBatch]:
    """Yield the windows of recordings in their order, up to ``batch_size`` at a time.

    One recording is in memory at a time. ``windows`` and errors are those of :meth:`EcgEncoder.encode_ecg`, unless
    ``unusable`` takes the errors.
    """
    found = _windows(ecgs, signal, windows, unusable)
    while part := list(islice(found, batch_size)):
        records, starts, cut = zip(*part, strict=True)
        valid = np.array([window.valid_samples for window in cut])
        signals, lead_mask = np.stack([window.signal for window in cut]), np.stack([window.lead_mask for window in cut])
        content = signals, signal.fs, valid, lead_mask
        yield WindowBatch(np.array(records, np.int64), np.array(starts, np.float64), content)


def _windows(
    ecgs: ECG | Iterable[ECG], signal: schema.Signal, windows: int | None, unusable: Unusable | None
) -> Iterator[tuple[int, float, Standardised]]:
    """Position of the recording, start in s, and the window, of each window; one recording in memory at a time."""
    from deri.ecg import ECG, standardise_windows

    remaining = iter([ecgs] if isinstance(ecgs, ECG) else ecgs)
    record = 0
    while (ecg := next(remaining, None)) is not None:
        if not isinstance(ecg, ECG):
            raise DeriError(
                f"a {type(ecg).__name__} is no recording: it says neither rate nor leads. Give ECGs, or what "
                "deri.ecg.recordings makes of paths and arrays"
            )
        try:  # the error comes before the first window
            for window in standardise_windows(ecg, signal.fs, signal.samples, windows=windows):
                yield record, window.start_sample / ecg.fs, window
        except ReadError as error:
            if unusable is None:
                raise
            unusable(record, error)
        record += 1
        del ecg  # before the next one is read


class EcgEncoder(nn.Module):
    """What embeds recordings: a model of this package, or one that was exported.

    Attributes:
        config: the section ``model`` of its recipe.
        preprocess: from signals in mV to its input.
        precision: in which it embeds signals, see :meth:`compute_in`.
    """

    config: schema.Model
    preprocess: Preprocess
    precision: Precision = "fp32"

    def compute_in(self, wanted: Precision | Literal["auto"]) -> Self:
        """Embed recordings in ``fp32``, ``bf16`` or, ``auto``, in bf16 where the device is fast in it; returns itself.

        bf16 moves embeddings a little (docs/performance.md), so that ``auto`` gives other digits on another device.
        """
        self.precision = choose_precision(wanted, self.device, fp16=False)
        return self

    def ecg_embedding(self, ecg: Tensor, valid_samples: Tensor | None = None) -> Tensor:
        """Inference embedding of recordings, not normalised: (B, 12, n) → (B, d)."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        raise NotImplementedError

    def embed_prepared(self, ecg: Tensor, valid_samples: Tensor | None = None) -> Tensor:
        """:meth:`ecg_embedding` computed in :attr:`precision`, float32."""
        with autocast(self.precision, self.device):
            return self.ecg_embedding(ecg, valid_samples).float()

    def encode_ecg(
        self, ecgs: Any, batch_size: int = 64, *, windows: int | None = None, fs: float | None = None
    ) -> np.ndarray:
        """Embed recordings of any rate and length: (n, d) float32, L2-normalised.

        ``ecgs``: one or many of ECGs, paths, and arrays (12, n) in mV of ``fs`` Hz, see
        :func:`deri.ecg.recordings`; an array without ``fs`` is refused. Each recording is standardised to the model's
        rate and cut into windows of the model's length (see ``deri.ecg.standardise_windows``); its embedding is the
        mean of its windows'. ``windows``: how many of them at most, spread evenly; 1 is the beginning alone, None all.
        From an iterator, one recording after the other is in memory. Raises :class:`deri.errors.ReadError` for one
        that cannot be used.
        """
        from deri.ecg import recordings

        parts = list(self.window_embeddings(recordings(ecgs, fs), batch_size, windows=windows))
        if not parts:
            return np.zeros((0, self.config.dim), np.float32)
        return pool_windows(parts)

    def window_embeddings(
        self,
        ecgs: ECG | Iterable[ECG],
        batch_size: int = 64,
        *,
        windows: int | None = None,
        unusable: Unusable | None = None,
    ) -> Iterator[WindowEmbeddings]:
        """Yield the embeddings of the windows of recordings, up to ``batch_size`` at a time, in their order.

        The next batch is read and standardised in a thread meanwhile. Memory does not grow with the number of
        recordings nor with the length of one, beyond the recording itself. ``windows`` and errors are those of
        :meth:`encode_ecg`, unless ``unusable`` takes the errors.
        """
        for batch in read_ahead(window_batches(ecgs, self.config.signal, windows, batch_size, unusable)):
            yield WindowEmbeddings(batch.record, batch.start, self.embed_signals(*batch.content, normalise=False))

    @torch.inference_mode()
    def embed_signals(
        self,
        signals: np.ndarray,
        fs: float,
        valid_samples: np.ndarray | None = None,
        lead_mask: np.ndarray | None = None,
        *,
        normalise: bool = True,
    ) -> np.ndarray:
        """Inference embeddings of standardised signals: (B, d) float32; sets eval mode.

        Args:
            signals: (B, 12, n) in mV, canonical leads.
            fs: their sampling rate, Hz.
            valid_samples: (B,) samples before padding; None: all.
            lead_mask: (B, 12) bool, leads that are there; None: all.
            normalise: to unit length.
        """
        self.eval()
        embedding = self.embed_prepared(*self.prepare(signals, fs, valid_samples, lead_mask))
        return _finite((F.normalize(embedding, dim=-1) if normalise else embedding).cpu().numpy(), "recordings")

    def prepare(
        self, signals: np.ndarray, fs: float, valid_samples: np.ndarray | None, lead_mask: np.ndarray | None
    ) -> tuple[Tensor, Tensor | None]:
        """Model input and its valid samples on the model's device; see :class:`Preprocess`."""
        return to_device(self.preprocess(signals, fs, valid_samples, lead_mask), self.device)


class EcgTextModel(EcgEncoder, PyTorchModelHubMixin):
    """An ECG encoder and a text encoder with a common embedding space of width ``config.dim``.

    A family gives :meth:`ecg_tokens`, :meth:`embed_tokens` and :meth:`outputs`.

    Attributes:
        family: its name in recipes.
        random_views: whether its two views of an ECG come from random draws (``view_noise`` of :meth:`forward`).
        token_width: width of its ECG tokens.
        joint_tokens: whether these lie in the same space as the embedding.
        head: a linear head on the embeddings, where the directory has one.
        calibration: from scores to probabilities, where the directory has one; for the weights as they were loaded.
    """

    family: str
    random_views = False

    def __init__(self, config: schema.Model, text_encoder: TextEncoder) -> None:
        super().__init__()
        if config.family != self.family:
            raise DeriError(f"{type(self).__name__} cannot be built from a {config.family!r} recipe")
        self.config = config
        self.backbone = BACKBONES[config.backbone](config)
        if self.backbone.leading and self.token_stride > 1:
            raise DeriError(f"backbone {config.backbone} has tokens of the whole recording: set model.token_stride=1")
        self.text_encoder = text_encoder
        self.text_projection = nn.Sequential(
            nn.Linear(text_encoder.width, config.dim), nn.GELU(), nn.Linear(config.dim, config.dim)
        )
        self.measured = MeasurementHead(config.dim) if config.measurements else None
        self.preprocess = Preprocess(config.signal)
        self.token_width, self.joint_tokens = config.dim, True
        self.recipe_name: str | None = None  # for the provenance of results
        self.head: Head | None = None
        self.calibration: Calibration | None = None

    # --- to be given by each family -------------------------------------------------------------------------------

    def ecg_tokens(self, ecg: Tensor, mask: Tensor | None = None) -> Tensor:
        """ECG tokens before attention over all of them: (B, 12, n) → (B, n_tokens, token_width)."""
        raise NotImplementedError

    def embed_tokens(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Inference embedding (B, d) of :meth:`ecg_tokens`, not normalised."""
        raise NotImplementedError

    def align_tokens(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Aligned embedding (B, d) of :meth:`ecg_tokens`."""
        return F.normalize(self.embed_tokens(tokens, mask), dim=-1)

    def outputs(
        self, tokens: Tensor, mask: Tensor | None, text: TextFeatures, view_noise: tuple[Tensor, Tensor] | None
    ) -> Output:
        """What training needs of a batch of pairs, from ECG tokens and text features."""
        raise NotImplementedError

    # --- shared ---------------------------------------------------------------------------------------------------

    def forward(
        self,
        ecg: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        features: TextFeatures | None = None,
        valid_samples: Tensor | None = None,
        view_noise: tuple[Tensor, Tensor] | None = None,
    ) -> Output:
        """Embeddings of a batch of pairs.

        Args:
            ecg: (B, 12, n) preprocessed recordings (see :class:`Preprocess`).
            input_ids: (B, T) token ids; with ``attention_mask`` (B, T).
            attention_mask: 1 for real tokens.
            features: output of the text encoder, instead of ids.
            valid_samples: (B,) samples that hold signal, where recordings were padded.
            view_noise: the random draws of the two views, (B, n_tokens) each; drawn here when not given.
        """
        text = self.text_features(input_ids, attention_mask, features)
        mask = self.token_mask(valid_samples, ecg.shape[-1])
        output = self.outputs(self.ecg_tokens(ecg, mask), mask, text, view_noise)
        if self.measured is not None:
            output.measured = self.measured(output.ecg_aligned if output.ecg_mixed is None else output.ecg_mixed)
        return output

    def ecg_embedding(self, ecg: Tensor, valid_samples: Tensor | None = None) -> Tensor:
        """Inference embedding of recordings, not normalised: (B, 12, n) → (B, d)."""
        mask = self.token_mask(valid_samples, ecg.shape[-1])
        return self.embed_tokens(self.ecg_tokens(ecg, mask), mask)

    @property
    def token_stride(self) -> int:
        """Stride of the token convolution (recipe, or the family's own for this backbone)."""
        return self.config.token_stride or 1

    def n_tokens(self, samples: int) -> int:
        """ECG tokens for an input of ``samples``."""
        return -(-self.backbone.n_tokens(samples) // self.token_stride)

    def token_mask(self, valid_samples: Tensor | None, samples: int) -> Tensor | None:
        """:meth:`signal_tokens`; None where all are, or padding is not masked."""
        if valid_samples is None or not self.config.mask_padding:
            return None
        mask = self.signal_tokens(valid_samples, samples)
        return None if bool(mask.all()) else mask

    def signal_tokens(self, valid_samples: Tensor, samples: int) -> Tensor:
        """(B, n_tokens) bool of the tokens whose samples hold signal."""
        step, leading = self.backbone.stride * self.token_stride, self.backbone.leading
        count = (leading + (valid_samples + step - 1) // step).clamp(leading + 1, self.n_tokens(samples))
        return torch.arange(self.n_tokens(samples), device=count.device) < count[:, None]

    def text_features(
        self, input_ids: Tensor | None, attention_mask: Tensor | None, features: TextFeatures | None
    ) -> TextFeatures:
        """The given features, or those of the given ids."""
        if features is not None:
            return features
        if input_ids is None or attention_mask is None:
            raise TypeError("give input_ids and attention_mask, or features")
        encoded: TextFeatures = self.text_encoder(input_ids, attention_mask)
        return encoded

    def text_aligned(self, features: TextFeatures) -> Tensor:
        """(B, d) L2-normalised projection of the pooled text."""
        return F.normalize(self.text_projection(features.pooled), dim=-1)

    def text_embedding(self, features: TextFeatures) -> Tensor:
        """Inference embedding of texts, not normalised: (B, d)."""
        return self.text_aligned(features)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.text_projection.parameters()).device

    @torch.inference_mode()
    def encode_text(self, texts: str | Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Embed texts: (n, d) float32, L2-normalised."""
        self.eval()
        texts = [texts] if isinstance(texts, str) else list(texts)
        parts = []
        for i in range(0, len(texts), batch_size):
            part = texts[i : i + batch_size]
            features = self.text_encoder.read(part, padding_counts=not self.config.mask_padding)
            parts.append(F.normalize(self.text_embedding(features).float(), dim=-1).cpu().numpy())
        return _finite(np.concatenate(parts), "texts") if parts else np.zeros((0, self.config.dim), np.float32)

    def encode_labels(self, labels: str | Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """Embed labels, (n, d) float32, L2-normalised, and say what is not as it seems.

        One text is one label. A label may be a text, a code such as ``AFIB``, or a finding in German or denied; see
        :func:`deri.reports.words.label_texts`.
        """
        found = label_texts([labels] if isinstance(labels, str) else labels)
        vectors = self.encode_text([text for label in found for text in label.texts])
        parts = np.split(vectors, np.cumsum([len(label.texts) for label in found])[:-1])
        directions = [label.sign * _direction(part) for label, part in zip(found, parts, strict=True)]
        return np.stack(directions), [label.note for label in found if label.note]

    def classify(
        self, ecgs: Any, labels: str | Sequence[str], *, windows: int | None = None, fs: float | None = None
    ) -> pd.DataFrame:
        """Cosine of each recording with each label text: a table of recordings × labels, values in [-1, 1].

        Scores rank recordings for one label; they are not probabilities and not comparable between labels.
        One text is one label. ``ecgs``, ``fs``, and ``windows``, how many windows of a long recording at most: see
        :meth:`encode_ecg`.
        """
        import pandas as pd

        labels = [labels] if isinstance(labels, str) else list(labels)
        weights, notes = self.encode_labels(labels)
        for note in notes:
            warnings.warn(note, stacklevel=2)
        scores = self.encode_ecg(ecgs, windows=windows, fs=fs) @ weights.T
        return pd.DataFrame(scores, columns=labels)

    # --- files (models/build.py has the format) ----------------------------------------------------------------

    def save_pretrained(self, save_directory: Any, *, card: str | None = None, **_: Any) -> None:
        """Write a model directory, or one at an address: config, weights, tokenizer, preprocessing and model card.

        ``push_to_hub`` comes from the mixin, which passes further arguments that a deri directory has no use for.
        """
        from deri.models.build import save_model

        with saving(save_directory) as folder:
            save_model(self, folder, card=card)

    @classmethod
    def from_pretrained(cls, name: Any, *, device: str | None = "cpu") -> Self:  # type: ignore[override]
        """Load a model, in eval mode: a directory, run, address, hub id, ``random:RECIPE`` or built-in name."""
        from deri.models.build import load_model

        model = load_model(name, device=device)
        if not isinstance(model, cls):
            raise DeriError(f"{name} holds a {model.family} model, not {cls.__name__}; load it with that class")
        return model


def _direction(vectors: np.ndarray) -> np.ndarray:
    """The unit vector of the mean; one alone stays as it is, to the bit."""
    mean: np.ndarray = vectors[0] if len(vectors) == 1 else vectors.mean(axis=0)
    return mean if len(vectors) == 1 else mean / np.linalg.norm(mean)


def _finite(embeddings: np.ndarray, what: str) -> np.ndarray:
    """The embeddings; DeriError where a number is none: scores of them would look like an answer."""
    bad = int((~np.isfinite(embeddings).all(axis=-1)).sum())
    if bad:
        raise DeriError(
            f"the model's embedding is not finite for {bad} of {len(embeddings)} {what}: the weights are broken, use "
            "another model or an earlier checkpoint"
        )
    return embeddings
