"""A lock between processes that the system releases when its holder dies, however it dies."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no flock: there, one process per store is up to the user
    fcntl = None  # type: ignore[assignment]

# Some cluster file systems are mounted without locks. Every write here is a rename of a file whose content does not
# depend on the writer, so that two writers cost time, not correctness.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


@contextmanager
def file_lock(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold an exclusive lock on the file ``path`` (created, never removed here).

    Yields True if the lock is held or locks do not exist here, False if another process holds it and ``wait`` is
    False.
    """
    if fcntl is None:
        yield True
        return
    with open(path, "ab") as handle:
        held = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            held = False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield held  # closing the file releases the lock
