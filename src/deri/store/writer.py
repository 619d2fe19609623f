"""``prepare``: from a data set to a store, in parallel, to be continued after a kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deri.errors import DeriError
from deri.store.chunks import ChunkJob, chunk_done, convert_chunk
from deri.store.finish import finish, partial_summary, remove_work
from deri.store.layout import FORMAT, META_FILE, chunk_count, chunk_size
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
    check_dataset(dataset)
    splits = assign_splits(
        dataset.examples,
        rule=split,
        seed=seed,
        val_fraction=dataset.val_fraction,
        test_fraction=dataset.test_fraction,
    )
    plan = make_plan(dataset, split=split, seed=seed, repair=repair)
    try:
        if (out / META_FILE).exists():
            return _finished(out, plan)
        claim(out, plan)
        _convert(dataset, out, workers=workers, shard=shard, repair=repair, progress=progress)
        chunks = chunk_count(len(dataset.examples))
        done = [k for k in range(chunks) if chunk_done(out, k)]
        if (out / META_FILE).exists():
            return _finished(out, plan)
        if len(done) < chunks:
            return partial_summary(dataset, splits, out, done)
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
    dataset: Dataset, out: Path, *, workers: int, shard: tuple[int, int], repair: str, progress: Progress | None
) -> None:
    n, size = len(dataset.examples), chunk_size(len(dataset.examples))
    files = dataset.examples["file"].tolist()
    mine = range(shard[0], chunk_count(n), shard[1])
    counts = {k: min(size, n - k * size) for k in mine}
    report = _Counter(counts, progress)
    # A chunk that another process has locked is skipped at first, and waited for when nothing else is left to do.
    for wait in (False, True):
        jobs = []
        for k in mine:
            if chunk_done(out, k):
                report(k, counts[k])
            else:
                part = tuple(files[k * size : (k + 1) * size])
                jobs.append(ChunkJob(out, k, k * size, Path(dataset.root), part, repair, wait))
        if jobs and (workers == 1 or len(jobs) == 1):
            for job in jobs:
                convert_chunk(job, lambda done, k=job.number: report(k, done))  # type: ignore[misc]
        elif jobs:
            convert_parallel(jobs, workers, report)


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
