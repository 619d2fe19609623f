"""From uploaded recordings to answers: a few threads read files, and one thread encodes those of all requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np

from deri.ecg import ECG
from deri.ecg.intervals import intervals
from deri.ecg.leads import LEADS
from deri.errors import DeriError, ReadError
from deri.evaluation.answers import Question, ask
from deri.evaluation.saliency import Saliency, occlude
from deri.evaluation.search import Index, direction_of
from deri.generation.review import ReviewedReport
from deri.generation.writer import ReportWriter
from deri.models import EcgTextModel
from deri.models.base import WindowEmbeddings, pool_windows, window_batches
from deri.serving.batcher import Batcher
from deri.serving.drawing import draw
from deri.serving.limits import Limits
from deri.serving.metrics import Metrics
from deri.serving.problem import Problem, too_busy
from deri.serving.uploads import Recording, Upload, read_uploads

T = TypeVar("T")

BATCH = 64
"""Windows that are encoded at once."""
SALIENCY_STEP_S = 0.4
_REPORTS = 8  # recordings whose reports are written at once


class Window(NamedTuple):
    """A standardised window (12, n) in mV, its samples before padding, and the leads that are there (12,)."""

    signal: np.ndarray
    valid_samples: int
    lead_mask: np.ndarray


@dataclass(frozen=True)
class Prepared:
    """The windows of a recording, and where they begin in it, in s."""

    start: np.ndarray
    windows: list[Window]


class Service:
    """A model and, where there are, an index and a writer, behind one queue each.

    Args:
        model: that embeds and classifies.
        name: of the model, for answers.
        index: that ``search`` looks through; it must be of the model.
        writer: of reports.
        limits: of requests.
    """

    def __init__(
        self,
        model: EcgTextModel,
        name: str,
        *,
        index: Index | None = None,
        writer: ReportWriter | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.model, self.name, self.index, self.writer = model, name, index, writer
        self.limits, self.metrics = limits or Limits(), Metrics()
        self._active = 0
        self._readers = ThreadPoolExecutor(2, "read")
        self._slow = ThreadPoolExecutor(2, "slow")  # drawings and saliency, which take seconds
        self._texts = ThreadPoolExecutor(1, "texts")
        self._windows = Batcher(self._encode, BATCH, "encode", self.metrics.batch)
        self._reports = Batcher(self._write, _REPORTS, "report")
        self._ask = lru_cache(maxsize=128)(self._asked)

    def warm(self) -> None:
        """Do once what every request needs, so that the first one does not wait, and a broken model shows at once."""
        self._ask(None, ())
        self.model.encode_text("a text that is no prompt")  # the text encoder is loaded when there is one
        signal = self.model.config.signal
        blank = Window(np.zeros((len(LEADS), signal.samples), np.float32), signal.samples, np.ones(len(LEADS), bool))
        self._windows.submit([blank])[0].result()

    def close(self) -> None:
        """Finish what was begun, and end all threads."""
        for pool in (self._readers, self._slow, self._texts):
            pool.shutdown(cancel_futures=True)
        self._windows.close()
        self._reports.close()

    async def limited(self, work: Awaitable[T]) -> T:
        """Do work of a request within the limits of number and time.

        Raises:
            Problem: too many requests wait (503), or it took too long (504).
        """
        if self._active >= self.limits.waiting:
            if asyncio.iscoroutine(work):
                work.close()
            raise too_busy(503, f"{self._active} requests are waiting; try again", 1)
        self._active += 1
        self.metrics.waiting.set(self._active)
        try:
            return await asyncio.wait_for(work, self.limits.work_s)
        except (TimeoutError, asyncio.TimeoutError):
            cause = f"the work took longer than {self.limits.work_s:g} s; send less at once, or try again"
            raise Problem(504, "too_slow", cause) from None
        finally:
            self._active -= 1
            self.metrics.waiting.set(self._active)

    # --- what requests ask for -------------------------------------------------------------------------------------

    async def read(self, uploads: Sequence[Upload], options: dict[str, Any]) -> list[Recording]:
        """The recordings of uploaded files."""
        return await _in(self._readers, read_uploads, uploads, options, self.limits)

    async def question(self, labels: Sequence[str] | None, prevalence: Mapping[str, float]) -> Question:
        """Labels, ready to be put to embeddings; None: all that the model knows."""
        key = None if labels is None else tuple(dict.fromkeys(labels))
        return await _in(self._texts, self._ask, key, tuple(prevalence.items()))

    async def embed(self, recordings: Sequence[Recording]) -> list[WindowEmbeddings]:
        """The embeddings of the windows of recordings, each by its position."""
        prepared = await _in(self._readers, lambda: [self._cut(one.ecg) for one in recordings])
        vectors = await self._encoded([window for one in prepared for window in one.windows])
        record = np.repeat(np.arange(len(prepared)), [len(one.windows) for one in prepared])
        return [WindowEmbeddings(record, np.concatenate([one.start for one in prepared]), vectors)]

    async def measure(self, recordings: Sequence[Recording]) -> list[dict[str, float | None]]:
        """Their intervals."""
        return await _in(self._readers, lambda: [intervals(one.ecg) for one in recordings])

    async def plot(self, recording: Recording, suffix: str, title: str | None, annotations: Sequence[str]) -> bytes:
        """A drawing on ECG paper: png, svg or pdf."""
        return await _in(self._slow, draw, recording.ecg, suffix, title, annotations)

    async def review(self, recordings: Sequence[Recording]) -> list[ReviewedReport]:
        """Drafts of reports; without findings where the writer is not calibrated.

        Raises:
            Problem: there is no writer.
        """
        if self.writer is None:
            raise Problem(404, "no_writer", "this service has no report writer: start it with deri serve --writer DIR")
        return await _gathered(self._reports.submit([one.ecg for one in recordings]))

    async def search(
        self, texts: Sequence[str], recordings: Sequence[Recording], *, top: int, where: str | None
    ) -> tuple[Any, list[str]]:
        """The nearest cases, a table whose index is their number, and what is not as it seems of the texts.

        Raises:
            Problem: there is no index.
            DeriError: neither text nor recording, or a filter that is not understood.
        """
        if self.index is None:
            raise Problem(404, "no_index", "this service has no index: start it with deri serve --index DIR")
        if not texts and not recordings:
            raise DeriError("the query is empty: give a text, e.g. 'atrial fibrillation', or an ECG file")
        vectors, notes = await _in(self._texts, self.model.encode_labels, texts) if texts else (None, [])
        parts = [] if vectors is None else [vectors]
        if recordings:
            parts.append(pool_windows(await self.embed(recordings)))
        query = direction_of(np.concatenate(parts))
        return await _in(self._slow, lambda: self._index().search(query, top=top, where=where)), notes

    async def case(self, number: int) -> Recording:
        """A recording of the index, from where it was indexed.

        Raises:
            Problem: there is no such case.
            ReadError: its file is not there any more.
        """
        if self.index is None or not 0 <= number < len(self.index.table):
            raise Problem(404, "no_case", f"there is no case {number}")
        return await _in(self._readers, self._case, number)

    async def saliency(self, recording: Recording, question: Question) -> Saliency:
        """What the score of a question's first label rests on, in the first window of a recording."""
        return await _in(self._slow, self._occlude, recording, question)

    # --- in threads ------------------------------------------------------------------------------------------------

    def _index(self) -> Index:
        assert self.index is not None
        return self.index

    def _case(self, number: int) -> Recording:
        index, name = self._index(), f"case {number}"
        try:
            return Recording(name, index.recording(number))
        except DeriError as error:  # the place of its file is not for clients
            told = str(error).replace(index.table["file"][number].as_py(), name)
            raise ReadError(told, getattr(error, "reason", "missing_file")) from None

    def _asked(self, labels: tuple[str, ...] | None, prevalence: tuple[tuple[str, float], ...]) -> Question:
        return ask(self.model, labels, dict(prevalence))

    def _cut(self, ecg: ECG) -> Prepared:
        starts: list[np.ndarray] = []
        windows: list[Window] = []
        for batch in window_batches(ecg, self.model.config.signal, None, BATCH):
            signals, _, valid, leads = batch.content
            starts.append(batch.start)
            windows += map(Window, signals, valid.tolist(), leads)
        return Prepared(np.concatenate(starts), windows)

    def _encode(self, windows: list[Window]) -> list[np.ndarray]:
        signals, valid, leads = (np.stack(part) for part in zip(*windows, strict=True))
        return list(self.model.embed_signals(signals, self.model.config.signal.fs, valid, leads, normalise=False))

    def _write(self, ecgs: list[ECG]) -> list[ReviewedReport]:
        assert self.writer is not None
        if self.writer.calibrated:
            return self.writer.review(ecgs)
        found = self.writer.generate(ecgs)
        told = zip(found.texts, found.log_probs, found.finished, strict=True)
        return [ReviewedReport(text, float(log_prob), bool(finished), [], []) for text, log_prob, finished in told]

    async def _encoded(self, windows: list[Window]) -> np.ndarray:
        vectors: list[np.ndarray] = await _gathered(self._windows.submit(windows))
        return np.stack(vectors)

    def _occlude(self, recording: Recording, question: Question) -> Saliency:
        first = self._cut(recording.ecg).windows[0]
        padding = first.signal.shape[1] - first.valid_samples

        def score(signals: np.ndarray) -> np.ndarray:
            padded = np.pad(signals, ((0, 0), (0, 0), (0, padding)))
            jobs = self._windows.submit([first._replace(signal=signal) for signal in padded])
            vectors = np.stack([vector for job in jobs for vector in job.result()])
            parts = [WindowEmbeddings(np.arange(len(vectors)), np.zeros(len(vectors)), vectors)]
            return question.of_windows(parts, per_window=True).score[:, 0]

        signal, fs = first.signal[:, : first.valid_samples], self.model.config.signal.fs
        return occlude(score, signal, fs, window=SALIENCY_STEP_S, stride=SALIENCY_STEP_S, batch_size=BATCH)


def parts_of(saliency: Saliency, fs: float) -> tuple[list[float], dict[str, float], dict[str, list[float]]]:
    """A map at one value per hidden part: over time, per lead, and per lead and time."""
    step = round(SALIENCY_STEP_S * fs)
    middle = slice(step // 2, None, step)
    by_lead = dict(zip(LEADS, saliency.lead.tolist(), strict=True))
    return (
        saliency.time[middle].tolist(),
        by_lead,
        dict(zip(LEADS, saliency.lead_time[:, middle].tolist(), strict=True)),
    )


async def _in(pool: ThreadPoolExecutor, function: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)


async def _gathered(futures: list[Future[list[T]]]) -> list[T]:
    parts = await asyncio.gather(*map(asyncio.wrap_future, futures))
    return [one for part in parts for one in part]
