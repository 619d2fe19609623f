"""Features of a frozen text encoder, computed once per distinct report and kept in the store."""

from __future__ import annotations

import hashlib
import shutil
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deri._version import __version__
from deri.errors import DeriError
from deri.files import MADE_AGAIN, file_sha256, write_json, write_sealed
from deri.progress import SILENT, Progress
from deri.store.beside import keep_beside
from deri.store.layout import REPORTS_FILE
from deri.store.npy import NpyAppender, map_npy, npy_bytes
from deri.store.plan import read_json
from deri.store.reader import Store, checked_numbers

FORMAT = "deri-text-features"
VERSION = 2  # with checksums
FEATURES_DIR = "text_features"
META_FILE = "meta.json"
PROGRESS_FILE = "progress.json"
_CURE = "delete the folder, the same command makes it again"

# Texts between two points from which a killed build continues. It bounds the memory as well: 1,024 texts of 256
# tokens, 768 wide, take 400 MB in float16.
PART = 1024
BATCH = 64


class TextEncoder(Protocol):
    """What :meth:`TextFeatures.build` needs of a text encoder.

    Attributes:
        fingerprint: names the encoder's weights, tokenizer and settings: equal fingerprints, equal features.
        width: d, the length of a token's feature.
    """

    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    @property
    def width(self) -> int: ...  # noqa: D102

    def encode(self, texts: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return for each text its token features (T_i, d), without padding, and its pooled feature (d,)."""
        ...


class TextFeatures:
    """Features of all distinct reports of a store; made and opened by :meth:`build`.

    The features of a text are compared with their checksum when they are first read. Reading is safe from several
    threads; a pickled instance opens its files anew.

    Attributes:
        path: the folder with the files.
        meta: the content of ``meta.json``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.meta = read_json(path / META_FILE)
        self._verified = np.zeros(self.meta["n"], bool)

    @classmethod
    def build(
        cls,
        store: Store,
        encoder: TextEncoder,
        *,
        texts: list[str] | None = None,
        kind: str = "",
        dtype: str = "float16",
        progress: Progress = SILENT,
    ) -> TextFeatures:
        """Return the features of ``store.reports``, or other texts made of them, under ``encoder``.

        What is not on disk yet is computed.

        Several processes may call this at once: one computes, the others wait for it. A killed build continues.

        Args:
            store: the store; where its folder is read-only, the features lie in :func:`deri.files.cache_folder`.
            encoder: see :class:`TextEncoder`.
            texts: instead of the reports; an id is then a position in this list.
            kind: names the list of ``texts``, as part of the folder's name.
            dtype: of the token features on disk, ``float16`` or ``float32``; pooled features are float32.
            progress: is told the texts done, of all texts.

        Raises:
            DeriError: the store has no reports, a feature is not finite or too large for ``dtype``, or the disk
                cannot be written.
            ValueError: the encoder's output has another shape than it promises.
        """
        if dtype not in ("float16", "float32"):
            raise DeriError(f"cache_dtype {dtype!r}: choose float16 or float32")
        texts = store.reports if texts is None else texts
        if not texts:
            raise DeriError(f"the store {store.path} has no reports: pairs of ECG and report are needed")
        identity = {
            "format": FORMAT,
            "version": VERSION,
            "encoder": encoder.fingerprint,
            "width": int(encoder.width),
            "dtype": dtype,
            "n": len(texts),
            "reports_sha256": store.meta["files"][REPORTS_FILE],
        }
        if kind:
            identity["texts_sha256"] = hashlib.sha256("\n".join(texts).encode()).hexdigest()
        name = features_key(encoder.fingerprint, dtype) + (f"-{kind}" if kind else "")
        path = keep_beside(
            store,
            f"{FEATURES_DIR}/{name}",
            lambda place: _complete(place, identity),
            lambda place: _Builder(place, identity, texts, encoder, progress).run(),
            progress,
        )
        return cls(path)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def __len__(self) -> int:
        return int(self.meta["n"])

    @property
    def width(self) -> int:
        """Length d of a feature."""
        return int(self.meta["width"])

    @cached_property
    def _offsets(self) -> np.ndarray:
        offsets: np.ndarray = np.load(self.path / "offsets.npy")
        return offsets

    @cached_property
    def _checksums(self) -> np.ndarray:
        checksums: np.ndarray = np.load(self.path / "checksums.npy")
        return checksums

    @cached_property
    def _tokens(self) -> np.ndarray:
        shape = (self.meta["tokens"], self.width)
        return map_npy(self.path / "tokens.npy", shape, np.dtype(self.meta["dtype"]), _CURE)

    @cached_property
    def _pooled(self) -> np.ndarray:
        return map_npy(self.path / "pooled.npy", (len(self), self.width), np.dtype(np.float32), _CURE)

    def lengths(self, report_ids: Any) -> np.ndarray:
        """Return the number of tokens of each report, int64 (b,)."""
        ids = self._checked(report_ids)
        lengths: np.ndarray = self._offsets[ids + 1] - self._offsets[ids]
        return lengths

    def pooled(self, report_ids: Any) -> np.ndarray:
        """Return the pooled features of reports, float32 (b, d).

        Raises:
            IndexError: an id is outside 0 … n - 1, as -1 (no report) is.
        """
        pooled: np.ndarray = self._pooled[self._checked(report_ids)]
        return pooled

    def tokens(self, report_ids: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the token features of reports, padded with zeros to the longest, and which tokens are real.

        Returns:
            float32 (b, T, d), bool (b, T).

        Raises:
            IndexError: an id is outside 0 … n - 1, as -1 (no report) is.
        """
        ids = self._checked(report_ids)
        starts = self._offsets[ids]
        lengths = self._offsets[ids + 1] - starts
        longest = int(lengths.max(initial=0))
        features = np.zeros((len(ids), longest, self.width), np.float32)
        for target, start, length in zip(features, starts, lengths, strict=True):
            target[:length] = self._tokens[start : start + length]
        return features, np.arange(longest) < lengths[:, None]

    def _checked(self, report_ids: Any) -> np.ndarray:
        ids = checked_numbers(report_ids, len(self), "report id")
        for i in ids[~self._verified[ids]].tolist():
            if _checksum(self._tokens[self._offsets[i] : self._offsets[i + 1]], self._pooled[i]) != self._checksums[i]:
                raise DeriError(f"{self.path} is damaged (text {i}): {MADE_AGAIN}")
            self._verified[i] = True
        return ids


def _checksum(tokens: np.ndarray, pooled: np.ndarray) -> int:
    """CRC-32 of a text's features as they lie on the disk."""
    return zlib.crc32(np.ascontiguousarray(pooled).data, zlib.crc32(np.ascontiguousarray(tokens).data))


def features_key(fingerprint: str, dtype: str = "float16") -> str:
    """Return the folder name of an encoder's features: 16 hex digits, and the type where it is not float16."""
    digest = hashlib.sha256(fingerprint.encode()).hexdigest()[:16]
    return digest if dtype == "float16" else f"{digest}-{dtype}"


def _complete(path: Path, identity: dict[str, Any]) -> bool:
    """Whether the folder holds exactly these features, whole."""
    try:
        meta = read_json(path / META_FILE)
    except (FileNotFoundError, DeriError):
        return False
    if any(meta.get(key) != value for key, value in identity.items()):
        return False
    n, d = identity["n"], identity["width"]
    sizes = {
        "tokens.npy": npy_bytes((meta["tokens"], d), np.dtype(identity["dtype"])),
        "pooled.npy": npy_bytes((n, d), np.dtype(np.float32)),
        "offsets.npy": npy_bytes((n + 1,), np.dtype(np.int64)),
        "checksums.npy": npy_bytes((n,), np.dtype(np.uint32)),
    }
    whole = all((path / name).is_file() and (path / name).stat().st_size == size for name, size in sizes.items())
    return whole and all(file_sha256(path / name) == digest for name, digest in meta["files"].items())


class _Builder:
    """Appends part after part to the final files in a folder aside; ``progress.json`` says how far they are valid."""

    def __init__(
        self,
        path: Path,
        identity: dict[str, Any],
        texts: list[str],
        encoder: TextEncoder,
        progress: Progress,
    ) -> None:
        self.path = path
        self.work = path.with_name(f"{path.name}.work")
        self.identity = identity
        self.texts = texts
        self.encoder = encoder
        self.progress = progress
        self.dtype = np.dtype(identity["dtype"])

    def run(self) -> None:
        if not _complete(self.work, self.identity):  # else it was killed before its last rename
            self._append_all()
        (self.work / PROGRESS_FILE).unlink(missing_ok=True)
        if self.path.exists():  # of other reports, or damaged
            shutil.rmtree(self.path)
        self.work.rename(self.path)

    def _append_all(self) -> None:
        done, tokens = self._resume()
        d = self.identity["width"]
        with (
            NpyAppender(self.work / "tokens.npy", (d,), self.dtype, tokens) as all_tokens,
            NpyAppender(self.work / "pooled.npy", (d,), "<f4", done) as all_pooled,
            NpyAppender(self.work / "offsets.npy", (), "<i8", done + 1 if done else 0) as offsets,
            NpyAppender(self.work / "checksums.npy", (), "<u4", done) as checksums,
        ):
            if not done:
                offsets.append(np.zeros(1, np.int64))
            while done < len(self.texts):
                for features, pooled in self._encode(done, self.texts[done : done + PART]):
                    all_tokens.append(features)
                    all_pooled.append(pooled[None])
                    offsets.append(np.array([all_tokens.rows], np.int64))
                    checksums.append(np.array([_checksum(features, pooled)], np.uint32))
                for file in (all_tokens, all_pooled, offsets, checksums):
                    file.flush()
                done = min(done + PART, len(self.texts))
                state = {"done": done, "tokens": all_tokens.rows}
                write_json(self.work / PROGRESS_FILE, {**self.identity, "part": PART, "batch": BATCH, **state})
                self.progress.update(done, len(self.texts))
            total = all_tokens.rows
        files = {name: file_sha256(self.work / name) for name in ("offsets.npy", "checksums.npy")}
        write_sealed(
            self.work / META_FILE, {**self.identity, "tokens": total, "files": files, "deri_version": __version__}
        )

    def _resume(self) -> tuple[int, int]:
        """Return how many texts and tokens of an earlier, killed build can be kept."""
        state = self.work / PROGRESS_FILE
        wanted = {**self.identity, "part": PART, "batch": BATCH}
        if state.is_file():
            found = read_json(state)
            if all(found.get(key) == value for key, value in wanted.items()):
                return int(found["done"]), int(found["tokens"])
        if self.work.exists():
            shutil.rmtree(self.work)
        self.work.mkdir()
        return 0, 0

    def _encode(self, first: int, texts: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Encode in batches of similar length, so that little is spent on padding; results in the given order."""
        results: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0), np.empty(0))] * len(texts)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            encoded = self.encoder.encode([texts[i] for i in batch])
            if len(encoded) != len(batch):
                raise ValueError(f"the text encoder gave {len(encoded)} results for {len(batch)} texts")
            for i, (features, pooled) in zip(batch, encoded, strict=True):
                results[i] = self._checked(np.asarray(features), np.asarray(pooled), first + i)
        return results

    def _checked(self, features: np.ndarray, pooled: np.ndarray, report: int) -> tuple[np.ndarray, np.ndarray]:
        d = self.identity["width"]
        if features.ndim != 2 or features.shape[1] != d or not len(features) or pooled.shape != (d,):
            raise ValueError(
                f"the text encoder gave tokens {features.shape} and pooled {pooled.shape}; "
                f"expected (at least 1, {d}) and ({d},)"
            )
        if not (np.isfinite(features).all() and np.isfinite(pooled).all()):
            raise DeriError(
                f"the text encoder {self.identity['encoder']} gives NaN or infinity for report {report}: "
                "its weights are damaged, or its precision is too low"
            )
        with np.errstate(over="ignore"):
            stored = features.astype(self.dtype)
        if not np.isfinite(stored).all():
            raise DeriError(
                f"the text encoder {self.identity['encoder']} gives features up to {np.abs(features).max():.3g}, "
                "too large for float16: set model.text.cache_dtype=float32"
            )
        return stored, pooled.astype(np.float32)
