"""Fetching a public data set from PhysioNet: every file of ``SHA256SUMS.txt``, resumable and verified.

A file is written as ``NAME.part``, continued there by an HTTP range request after a break, and gets its name when its
SHA-256 is right. ``.verified`` in the target folder lists those files, so that a second run does not hash 90 GB.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import posixpath
import re
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from urllib.parse import quote, urlsplit

from deri.datasets.base import DATASETS, Source
from deri.errors import DeriError
from deri.files import writing
from deri.progress import SILENT, Progress

SUMS = "SHA256SUMS.txt"
VERIFIED = ".verified"
_BLOCK = 1 << 18
_ATTEMPTS = 3
_TIMEOUT = 60.0
_MOST_SUMS_BYTES = 1 << 30
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EISDIR}
_LINE = re.compile(r"([0-9a-fA-F]{64})[ \t]+\*?(.+)")


@dataclass(frozen=True)
class DownloadSummary:
    """Numbers of files: ``fetched`` now, ``kept`` from before, ``total``."""

    out: Path
    fetched: int
    kept: int
    total: int

    def text(self) -> str:
        """One line for people."""
        return f"{self.total:,} files in {self.out}: {self.fetched:,} fetched, {self.kept:,} kept; checksums verified"


def sources() -> dict[str, Source]:
    """The data sets that can be downloaded, by their names in ``deri prepare``."""
    return {name: source for name in DATASETS if (source := DATASETS[name].source) is not None}


def source_of(name: str, url: str | None = None) -> Source:
    """The source of a data set; ``url`` names a mirror of the project. Raises DeriError for an unknown name."""
    known = sources()
    if name not in known:
        raise DeriError(f"{name!r} cannot be downloaded; there are {', '.join(known)}")
    if url is None:
        return known[name]
    if urlsplit(url).scheme not in ("http", "https"):
        raise DeriError(f"--url {url}: expected an http or https address of the folder with {SUMS}")
    return replace(known[name], url=url if url.endswith("/") else f"{url}/")


def download(source: Source, out: str | Path, *, connections: int = 4, progress: Progress = SILENT) -> DownloadSummary:
    """Fetch all files of ``source`` into ``out``; what is there and was verified is kept.

    ``progress`` counts files. Raises DeriError where the server does not answer, lacks a file, or sends
    one with another checksum three times; run again to continue.
    """
    out = Path(out)
    if connections < 1:
        raise DeriError(f"--connections {connections}: at least 1 is needed")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        sums = _read_sums(source)
        verified = _read_verified(out / VERIFIED)
        kept = {path for path, sha in sums.items() if verified.get(path) == (sha, _size(out / path))}
        wanted = [path for path in sums if path not in kept]
        progress.update(len(kept), len(sums))
        with open(out / VERIFIED, "a", encoding="utf-8") as log:
            log.write("\n")  # ends a line that a kill cut off
            for done, path in enumerate(_fetch_all(source, out, sums, wanted, connections), len(kept) + 1):
                log.write(f"{sums[path]} {_size(out / path)} {path}\n")
                log.flush()
                progress.update(done, len(sums))
    return DownloadSummary(out, len(wanted), len(kept), len(sums))


def _fetch_all(source: Source, out: Path, sums: dict[str, str], wanted: list[str], connections: int) -> Iterator[str]:
    """Yield each path when its file is whole. At most a few per connection are under way: a million stay a list."""
    local = threading.local()
    clients: list[_Client] = []

    def fetch(path: str) -> str:
        if not hasattr(local, "client"):
            local.client = _Client(source.url)
            clients.append(local.client)
        _fetch(local.client, source.prefix + path, out / path, sums[path])
        return path

    queue = iter(wanted)
    with ThreadPoolExecutor(connections) as pool:
        try:
            while batch := list(islice(queue, 64 * connections)):
                yield from pool.map(fetch, batch)
        finally:
            pool.shutdown(cancel_futures=True)
            for client in clients:
                client.close()


def _fetch(client: _Client, name: str, target: Path, sha: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_file() and _sha256(target) == sha:  # from elsewhere, or of a run that was killed
        return
    part = target.with_name(f"{target.name}.part")
    cause = ""
    for _ in range(_ATTEMPTS):
        try:
            client.get(name, part)
        except (http.client.HTTPException, OSError) as error:
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise
            client.close()
            cause = f"the connection failed ({error or type(error).__name__})"
            continue
        if _sha256(part) == sha:
            os.replace(part, target)
            return
        part.unlink()  # wrong from some byte on: continuing it would not help
        cause = "its SHA-256 is not that of the list"
    raise DeriError(f"{client.base}{name}: {cause}, {_ATTEMPTS} times. Run the same command again to continue")


class _Client:
    """One connection that is kept open; a hundred thousand small files would else wait for as many handshakes."""

    def __init__(self, base: str) -> None:
        self.base = base
        self._address = urlsplit(base)
        self._connection: http.client.HTTPConnection | None = None

    def get(self, name: str, part: Path) -> None:
        """Fetch ``name`` into ``part``, from where that ends."""
        start = _size(part) or 0
        headers = {"User-Agent": "deri", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        response = self._request(name, headers)
        if response.status == 416:  # nothing left, or another file than before: the checksum tells
            response.read()
            return
        if response.status not in (200, 206):
            response.read()
            raise DeriError(
                f"{self.base}{name}: the server answers {response.status} {response.reason}; "
                "is the address right, and does the project need an account?"
            )
        continued = response.status == 206 and _range_start(response) == start
        if response.status == 206 and not continued:
            raise http.client.HTTPException("the server sent another range than was asked for")
        expected = response.length
        with open(part, "ab" if continued else "wb") as handle:
            got = 0
            while block := response.read(_BLOCK):
                handle.write(block)
                got += len(block)
        if expected is not None and got < expected:
            raise http.client.IncompleteRead(b"", expected - got)

    def _request(self, name: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        if self._connection is None:
            kind = http.client.HTTPSConnection if self._address.scheme == "https" else http.client.HTTPConnection
            self._connection = kind(self._address.hostname or "", self._address.port, timeout=_TIMEOUT)
        self._connection.request("GET", self._address.path + quote(name), headers=headers)
        return self._connection.getresponse()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _range_start(response: http.client.HTTPResponse) -> int | None:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _read_sums(source: Source) -> dict[str, str]:
    """Path below the prefix → SHA-256. Paths that leave the folder are refused."""
    client = _Client(source.url)
    try:
        # Under a name of its own and never continued: a list of another day would join two halves.
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / SUMS
            try:
                client.get(SUMS, part)
            except (http.client.HTTPException, OSError) as error:
                reason = str(error) or type(error).__name__
                raise DeriError(f"{source.url}{SUMS}: no connection ({reason}); check the network") from error
            if (_size(part) or 0) > _MOST_SUMS_BYTES:
                raise DeriError(f"{source.url}{SUMS}: too large to be a list of checksums")
            text = part.read_text(encoding="utf-8", errors="replace")
    finally:
        client.close()
    sums = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match is None:
            if line.strip():
                raise DeriError(f"{source.url}{SUMS}: is no list of checksums ({line.strip()[:60]!r})")
            continue
        path = match[2]
        if path.startswith("/") or ".." in path.split("/") or "\\" in path or ":" in path.split("/")[0]:
            raise DeriError(f"{source.url}{SUMS}: names a file outside the data set ({path[:80]!r})")
        if path.startswith(source.prefix) and posixpath.basename(path) != VERIFIED:
            sums[posixpath.normpath(path[len(source.prefix) :])] = match[1].lower()
    if not sums:
        raise DeriError(f"{source.url}{SUMS}: lists no files below {source.prefix or '/'}")
    return sums


def _read_verified(path: Path) -> dict[str, tuple[str, int]]:
    """Path → (SHA-256, size). A line that a kill cut off is passed over: its file is hashed again."""
    verified = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            fields = line.split(" ", 2)
            if len(fields) == 3 and fields[1].isdigit():
                verified[fields[2]] = (fields[0], int(fields[1]))
    return verified


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
