"""``prepare``: from a data set to a store, in parallel, to be continued after a kill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from deri.errors import DeriError
from deri.store.chunk import ChunkJob, chunk_done, convert_chunk
from deri.store.finish import finish, partial_summary, remove_work
from deri.store.layout import FORMAT, LEAD_COUNT, META_FILE, chunk_count, chunk_size
from deri.store.plan import check_dataset, claim, make_plan, read_json, refuse_other_plan
from deri.store.pool import convert_parallel
from deri.store.splits import assign_splits
from deri.store.summary import Summary

if TYPE_CHECKING:
    from deri.datasets import Dataset

Progress = Callable[[int, int], None]


def prepare(
    dataset: Dataset,
    out: str | Path,
    *,
    workers: int = 1,
    shard: tuple[int, int] = (0, 1),
    split: str = "patient",
    repair: str = "lead",
    min_leads: int = 1,
    windows: int | None = 1,
    duplicates: str = "keep",
    seed: int = 0,
    progress: Progress | None = None,
) -> Summary:
    """Read, standardise and store every recording of ``dataset`` in the folder ``out``.

    The same data set and options give the same bytes, whatever ``workers`` and ``shard``. A run that was killed is
    continued by running it again; on a finished store the same call only returns its summary.

    Args:
        dataset: the data set.
        out: folder of the store: new, empty, or of an earlier run of the same preparation.
        workers: processes that read recordings; 1 reads in this process.
        shard: ``(i, n)`` does only the chunks k with ``k % n == i``, for a preparation spread over n jobs that share
            ``out``. Whoever comes last finishes the store.
        split: ``"patient"`` keeps all recordings of a patient in one split; ``"record"`` (the published way) draws,
            and accepts given splits, record by record.
        repair: how gaps are filled, see :func:`deri.ecg.standardise`.
        min_leads: a recording with fewer leads, recorded or derived, is refused (``missing_leads``).
        windows: how many windows of 10 s to store of a longer recording; None: all. 1 (the published way) is its
            first 10 s; see :func:`deri.ecg.standardise.choose_windows`.
        duplicates: ``"keep"`` flags a recording that has the samples of an earlier one, ``"drop"`` refuses it
            (``duplicate_recording``): its row stays in the shard, but not in the index.
        seed: of the split.
        progress: called with (recordings looked at, recordings of this call).

    Returns:
        The counts. ``complete`` is False where other shards are still missing.

    Raises:
        DeriError: ``out`` holds something else; the options do not fit; no recording can be used; the disk is full;
            a worker process was killed.
    """
    out = Path(out)
    _check_options(workers, shard, split, repair)
    if not 1 <= min_leads <= LEAD_COUNT:
        raise DeriError(f"--min-leads {min_leads}: a number from 1 to {LEAD_COUNT}")
    if windows is not None and windows < 1:
        raise DeriError(f"--windows {windows}: at least 1, or all")
    if duplicates not in ("keep", "drop"):
        raise DeriError(f"--duplicates {duplicates}: choose keep or drop")
    check_dataset(dataset)
    splits = assign_splits(
        dataset.examples,
        rule=split,
        seed=seed,
        val_fraction=dataset.val_fraction,
        test_fraction=dataset.test_fraction,
    )
    plan = make_plan(
        dataset, split=split, seed=seed, repair=repair, min_leads=min_leads, windows=windows, duplicates=duplicates
    )
    reading = {"repair": repair, "min_leads": min_leads, "windows": windows}
    try:
        if (out / META_FILE).exists():
            return _finished(out, plan)
        claim(out, plan)
        _convert(dataset, out, workers=workers, shard=shard, reading=reading, progress=progress)
        chunks = chunk_count(len(dataset.examples))
        done = [k for k in range(chunks) if chunk_done(out, k)]
        if (out / META_FILE).exists():
            return _finished(out, plan)
        if len(done) < chunks:
            return partial_summary(dataset, splits, out, done, drop=duplicates == "drop")
        return finish(dataset, splits, out, plan) or _finished(out, plan)
    except FileNotFoundError:
        # Another shard finished the store and removed the work files while they were looked at here.
        if (out / META_FILE).exists():
            return _finished(out, plan)
        raise
    except PermissionError as error:
        raise DeriError(f"cannot write to --out {out}: {error}. Choose a folder that you may write to") from error
    except OSError as error:
        raise DeriError(
            f"cannot write to --out {out}: {error}. Make room and run the same command again: finished chunks are kept"
        ) from error


def _check_options(workers: int, shard: tuple[int, int], split: str, repair: str) -> None:
    index, count = shard
    if workers < 1:
        raise DeriError(f"--workers {workers}: at least 1 is needed")
    if count < 1 or not 0 <= index < count:
        raise DeriError(f"--shard {index}/{count}: of N shards, I runs from 0 to N-1")
    if split not in ("patient", "record"):
        raise DeriError(f"--split {split}: choose patient or record")
    if repair not in ("lead", "published"):
        raise DeriError(f"--repair {repair}: choose lead or published")


def _finished(out: Path, plan: dict[str, Any]) -> Summary:
    meta = read_json(out / META_FILE)
    if meta.get("format") != FORMAT:
        raise DeriError(f"--out {out} is not empty and no store: choose another --out, or delete it")
    refuse_other_plan(out, meta.get("plan", {}) | {"version": meta.get("version")}, plan)
    remove_work(out)  # a run killed right after store.json was written leaves it
    return Summary(**meta["summary"])


def _convert(
    dataset: Dataset,
    out: Path,
    *,
    workers: int,
    shard: tuple[int, int],
    reading: dict[str, Any],
    progress: Progress | None,
) -> None:
    n, size = len(dataset.examples), chunk_size(len(dataset.examples))
    mine = range(shard[0], chunk_count(n), shard[1])
    counts = {k: min(size, n - k * size) for k in mine}
    report = _Counter(counts, progress)
    # A chunk that another process has locked is skipped at first, and waited for when nothing else is left to do.
    for wait in (False, True):
        todo = []
        for k in mine:
            if chunk_done(out, k):
                report(k, counts[k])
            else:
                todo.append(k)
        jobs = _Jobs(dataset, out, todo, {"wait": wait, **reading})
        if jobs and (workers == 1 or len(jobs) == 1):
            for job in jobs:
                convert_chunk(job, lambda done, k=job.number: report(k, done))  # type: ignore[misc]
        elif jobs:
            convert_parallel(jobs, workers, report)


class _Jobs(Sequence[ChunkJob]):
    """The jobs of some chunks, each made when its turn comes: the names of all files are many."""

    def __init__(self, dataset: Dataset, out: Path, chunks: list[int], options: dict[str, Any]) -> None:
        self._files = dataset.examples["file"]
        self._root = Path(dataset.root)
        self._out = out
        self._chunks = chunks
        self._options = options

    def __len__(self) -> int:
        return len(self._chunks)

    @overload
    def __getitem__(self, index: int) -> ChunkJob: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ChunkJob]: ...
    def __getitem__(self, index: int | slice) -> ChunkJob | Sequence[ChunkJob]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number, size = self._chunks[index], chunk_size(len(self._files))
        files = tuple(self._files.iloc[number * size : (number + 1) * size].tolist())
        return ChunkJob(self._out, number, number * size, self._root, files, **self._options)


class _Counter:
    """Adds up the progress of chunks and passes it on when it has moved."""

    def __init__(self, totals: dict[int, int], progress: Progress | None) -> None:
        self.total = sum(totals.values())
        self.done = dict.fromkeys(totals, 0)
        self.sum = 0
        self.progress = progress

    def __call__(self, chunk: int, done: int) -> None:
        moved = done - self.done[chunk]
        if moved > 0:
            self.done[chunk] = done
            self.sum += moved
            if self.progress is not None:
                self.progress(self.sum, self.total)
