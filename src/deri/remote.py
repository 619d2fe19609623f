"""Stores, models and results at addresses (``s3://bucket/path``), through fsspec: the one place that asks for them.

:func:`fetch` brings files to the cache, :func:`publish` uploads a folder, :func:`read_ranges` reads parts of files.
"""

from __future__ import annotations

import errno
import hashlib
import posixpath
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deri.errors import DeriError, install
from deri.files import (
    AGAIN,
    WriteError,
    address_of,
    atomic_path,
    cache_folder,
    digest_of,
    file_sha256,
    read_sealed,
    remove_leftovers,
    write_sealed,
    writing,
)
from deri.progress import SILENT, Progress

MANIFESTS = ("store.json", "run.json", "classes.json", "index.json", "config.json")
"""Files that say what a directory of deri is, of several the first one; they are uploaded last."""

PART_BYTES = 50 * 2**20
"""Of an upload to S3 in parts; the checksum that S3 tells depends on it."""
_S3 = ("s3", "s3a")
# Here an object is there as a whole or not at all. Elsewhere it is written under another name and moved.
_OBJECT_STORES = (*_S3, "gs", "gcs", "az", "abfs", "abfss", "oss", "oci")
_SECRET = re.compile(r"://[^/@]*:[^/]*@")
_FETCHED = ".fetched.json"
# What tells the content of an object from another, in the listings of the file systems.
_VERSION = (
    "ETag", "etag", "md5Hash", "blob_id", "LastModified", "last_modified", "mtime", "created", "modified", "modify",
    "modificationTime",
)  # fmt: skip
# Where a listing tells none of these, a copy serves the process that made it and no other.
_OF_THIS_PROCESS = uuid.uuid4().hex
_OF_THIS_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_CURES = (
    ("Credentials", "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ("Permission", "the credentials do not allow it: check them and the rules of the bucket"),
    ("FileNotFound", "check the address"),
    ("Connect", "check the network and AWS_ENDPOINT_URL"),
)


class RemoteError(DeriError):
    """An address that gave no answer, or not the one that was asked for."""


def _version(about: dict[str, Any]) -> str:
    """A digest of what a listing says of the content of an object."""
    told = [str(about[key]) for key in _VERSION if about.get(key) is not None]
    return digest_of([str(about.get("size")), *(told or [_OF_THIS_PROCESS])])


@dataclass(frozen=True)
class Address:
    """A file or folder at an address, with what readers of a store need of :class:`pathlib.Path`.

    Attributes:
        url: the address, ``PROTOCOL://…``, without a slash at its end.
    """

    url: str

    def __post_init__(self) -> None:
        check_address(self.url)

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, part: str) -> Address:
        return Address(f"{self.url}/{part}")

    @property
    def name(self) -> str:
        """The last part."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def parent(self) -> Address:
        """The folder that it is in."""
        return Address(self.url.rsplit("/", 1)[0])

    def is_file(self) -> bool:
        """Whether there is such a file; what may not be seen is not there.

        Raises:
            DeriError: nobody answers, or there are no credentials.
        """
        with self._asking() as (files, path):
            return (_info(files, path) or {}).get("type") == "file"

    def size(self) -> int | None:
        """Bytes of the file; None where there is none."""
        with self._asking() as (files, path):
            return (_info(files, path) or {}).get("size")

    def read_text(self, encoding: str = "utf-8") -> str:
        """The file's text."""
        with self._asking() as (files, path):
            content = files.cat_file(path)
        return str(content, encoding)

    def download(self, target: Path) -> None:
        """Write the file to ``target``."""
        with self._asking() as (files, path):
            files.get_file(path, str(target))

    def upload(self, file: Path) -> None:
        """Put a file there, whole or not at all, unless the same content is there already."""
        protocol = self.url.partition("://")[0]
        with self._asking() as (files, path):
            there = _info(files, path) or {}
            if "ETag" in there and there["size"] == file.stat().st_size and _is_same(file, there["ETag"]):
                return
            if protocol in _OBJECT_STORES:
                files.put_file(str(file), path, **({"chunksize": PART_BYTES} if protocol in _S3 else {}))
                return
            folder, name = posixpath.split(path)
            files.makedirs(folder, exist_ok=True)
            files.put_file(str(file), aside := f"{folder}/.{name}.tmp")
            files.mv(aside, path)

    def versions(self, suffixes: Sequence[str]) -> dict[str, str]:
        """The files below, by their relative names that end with ``suffixes``, and a digest of what their listing says.

        Hidden files are left out.

        Raises:
            DeriError: an object has a name that would leave the folder.
        """
        with self._asking() as (files, path):
            found = files.find(path, detail=True)
        names = {full[len(path) + 1 :]: about for full, about in found.items() if full != path}
        wanted = {name: about for name, about in names.items() if name.endswith(tuple(suffixes))}
        for name in wanted:
            if re.search(r"[\\\0:]", name) or not {"", ".", ".."}.isdisjoint(name.split("/")):
                raise DeriError(f"{self} holds an object with the name {name!r}, which is no file's: remove it")
        return {
            name: _version(about)
            for name, about in sorted(wanted.items())
            if not any(part.startswith(".") for part in name.split("/"))
        }

    @contextmanager
    def _asking(self) -> Iterator[tuple[Any, str]]:
        """Yield the file system and the path in it; its errors become :class:`DeriError` of one line."""
        files, path = connect(self.url)
        try:
            yield files, path
        except DeriError:
            raise
        except Exception as error:  # every protocol has its own errors
            if isinstance(error, OSError) and error.errno in _OF_THIS_DISK:
                raise
            raise _told(self.url, error) from error


def is_address(name: str | Path | Address) -> bool:
    """Whether a name is an address, not a path."""
    return isinstance(place(name), Address)


def place(name: str | Path | Address) -> Path | Address:
    """A name as a path, or as an address where it is one.

    Raises:
        DeriError: the address holds a key or a password.
    """
    if isinstance(name, Address):
        return name
    url = name if isinstance(name, str) and "://" in name else address_of(name)
    return Path(name) if url is None else Address(url.rstrip("/"))


def check_address(url: str) -> None:
    """DeriError where an address names no place, or holds a key or a password; the latter is not repeated."""
    protocol, _, rest = url.partition("://")
    if not rest:
        raise DeriError(f"{url}: names no bucket or host")
    host = rest.partition("/")[0]
    if _SECRET.search(url) or (protocol in _OBJECT_STORES and ":" in host and not host.startswith("arn:")):
        raise DeriError(
            "an address with a key or password in it is refused, logs and results would repeat it: give credentials by "
            "AWS_PROFILE, AWS_ACCESS_KEY_ID and their like, and the address without them"
        )


def connect(url: str) -> tuple[Any, str]:
    """The file system of an address, as fsspec knows it, and the path in it; for this thread and process only.

    Raises:
        DeriError: a package is not installed, the protocol is unknown, or the address holds a secret.
    """
    check_address(url)
    try:
        import fsspec
    except ImportError as error:
        raise DeriError(f"{url}: an address needs the package fsspec: {install('formats')}") from error
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(url)
    except Exception as error:  # unknown protocols, missing packages, bad settings
        raise _told(url, error) from error
    found[0].invalidate_cache()  # others change what is there
    return found


def cause_of(error: Exception) -> Exception:
    """What was wrong: fsspec calls every fault of HTTP a missing file, the cause knows better."""
    cause = error.__cause__
    return cause if isinstance(cause, Exception) and type(cause).__module__.startswith("aiohttp") else error


def is_missing(error: Exception) -> bool:
    """Whether an error of a file system says that there is no such file, and nothing worse."""
    cause = cause_of(error)
    missing = cause is error or getattr(cause, "status", 0) == 404
    return isinstance(error, FileNotFoundError) and missing and "bucket does not exist" not in str(error)


def _told(url: str, error: Exception) -> RemoteError:
    cause = cause_of(error)
    kinds = " ".join(kind.__name__ for kind in type(cause).__mro__)
    if isinstance(error, ImportError):
        package = re.search(r"[Ii]nstall (\S+)", str(error))
        protocol = url.partition("://")[0]
        cure = install("s3") if protocol in _S3 else f"pip install {package[1] if package else protocol}"
        return RemoteError(f"{url}: the package for {protocol}:// is not installed: {cure}")
    text = " ".join(str(cause).split())[:160] or type(cause).__name__
    if isinstance(error, FileNotFoundError) and is_missing(error):
        text = "there is no such file"
    cure = next((cure for kind, cure in _CURES if kind in kinds), "check the address")
    return RemoteError(f"{url}: {text}; {cure}")


def read_ranges(ranges: Sequence[tuple[Address, int, int]]) -> list[bytes]:
    """Bytes ``begin`` … ``end`` - 1 of files of one file system, all asked for at once.

    Raises:
        DeriError: a file is not there, cannot be read, or is shorter.
    """
    files = connect(ranges[0][0].url)[0]
    paths = [files._strip_protocol(address.url) for address, _, _ in ranges]
    begins, ends = [begin for _, begin, _ in ranges], [end for _, _, end in ranges]
    try:
        answers = files.cat_ranges(paths, begins, ends, on_error="return")
    except Exception as error:  # every protocol has its own errors
        raise _told(ranges[0][0].url, error) from error
    for (address, begin, end), answer in zip(ranges, answers, strict=True):
        if isinstance(answer, Exception):
            raise _told(address.url, answer) from answer
        if len(answer) != end - begin:
            raise RemoteError(f"{address} ends before byte {end:,}: it was cut short or changed; upload it again")
    return [bytes(answer) for answer in answers]


def sizes(addresses: Sequence[Address]) -> list[int | None]:
    """:meth:`Address.size` of each, many asked for at a time."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(16) as threads:
        return list(threads.map(Address.size, addresses))


def fetch(source: Address, files: Mapping[str, str]) -> Path:
    """The folder in the cache with copies of ``files`` of ``source``, downloaded where they are not there yet.

    Copies that changed on the disk are downloaded anew.

    Args:
        source: a folder.
        files: relative names, and for each a text that is another one when its content is.
    """
    name = re.sub(r"[^A-Za-z0-9]+", "-", source.url)[-60:]
    folder = cache_folder() / "fetched" / f"{name}-{digest_of([source.url, dict(files)])}"
    if _whole(folder):
        return folder
    with writing(folder, f"{AGAIN}; DERI_CACHE names another folder"):
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # tables may hold reports
        remove_leftovers(folder.parent)
        if folder.exists():
            shutil.rmtree(folder)
        try:
            with atomic_path(folder) as aside:
                for relative in files:
                    (aside / relative).parent.mkdir(parents=True, exist_ok=True)
                    (source / relative).download(aside / relative)
                write_sealed(aside / _FETCHED, {relative: file_sha256(aside / relative) for relative in files})
        except WriteError:  # another process was faster
            if not _whole(folder):
                raise
    return folder


def fetch_folder(source: Address, suffixes: Sequence[str]) -> Path:
    """:func:`fetch` of all files below ``source`` whose names end with ``suffixes``, as they are now.

    Raises:
        DeriError: they changed meanwhile.
    """
    before = source.versions(suffixes)
    folder = fetch(source, before)
    if source.versions(suffixes) != before:
        shutil.rmtree(folder)
        raise DeriError(f"{source} changed while it was fetched: {AGAIN}")
    return folder


def _whole(folder: Path) -> bool:
    try:
        files = read_sealed(folder / _FETCHED, "")
        return all(file_sha256(folder / name) == digest for name, digest in files.items())
    except (OSError, DeriError):
        return False


def publish(folder: str | Path, target: str | Address, progress: Progress = SILENT) -> None:
    """Upload the files below ``folder`` to ``target``, manifests last, so that a part of them is no store or model.

    What is there already with the same content is passed over, where the file system tells checksums (S3 without
    encryption by a key of one's own). Hidden files and locks stay here.

    Raises:
        DeriError: the address cannot be written.
    """
    folder, there = Path(folder), place(target)
    if isinstance(there, Path):
        raise DeriError(f"{target} is no address: copy the folder as you copy others")
    files = [file for file in folder.rglob("*") if file.is_file() and _is_part(file.relative_to(folder))]
    files.sort(key=lambda file: (file.name in MANIFESTS, -len(file.parts) if file.name in MANIFESTS else 0, str(file)))
    sizes, done = [file.stat().st_size for file in files], 0
    for file, size in zip(files, sizes, strict=True):
        (there / file.relative_to(folder).as_posix()).upload(file)
        done += size
        progress.update(done, sum(sizes))


def _is_part(name: Path) -> bool:
    return name.suffix != ".lock" and not any(part.startswith(".") for part in name.parts)


def _info(files: Any, path: str) -> dict[str, Any] | None:
    """What a file system says of a path; None where there is nothing that may be seen."""
    try:
        return dict(files.info(path))
    except PermissionError:
        return None
    except FileNotFoundError as error:
        if is_missing(error):
            return None
        raise


def _is_same(file: Path, tag: str) -> bool:
    """Whether S3's ETag is that of the file: its MD5, or that of the MD5s of the parts in which it came."""
    whole, parts = hashlib.md5(usedforsecurity=False), b""
    with open(file, "rb") as handle:
        while block := handle.read(PART_BYTES):
            whole.update(block)
            parts += hashlib.md5(block, usedforsecurity=False).digest()
    in_parts = hashlib.md5(parts, usedforsecurity=False).hexdigest()
    digest, _, count = tag.strip('"').partition("-")
    return digest == (in_parts if count else whole.hexdigest())


def stage(target: Address, *, anew: bool) -> Path:
    """A path in the cache where what is to lie at ``target`` is made; :func:`send` uploads it.

    Args:
        target: of a file or folder.
        anew: remove what an earlier try left there.

    Raises:
        DeriError: nobody answers there, or a store, run, model or index is there already.
    """
    if "/" not in target.url.partition("://")[2]:
        raise DeriError(f"{target}: name a folder or file in it")
    if found := next((name for name in MANIFESTS if (target / name).is_file()), None):
        raise DeriError(
            f"{target} holds a {found} already, which is not written over: name another place, or delete it"
        )
    folder = cache_folder() / "outgoing" / digest_of(target.url)
    if anew and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / target.name


def send(target: Address, progress: Progress = SILENT) -> None:
    """Upload what was made at :func:`stage`'s path for ``target``, and what lies beside it; then remove it here."""
    folder = cache_folder() / "outgoing" / digest_of(target.url)
    try:
        publish(folder, target.parent, progress)
    except DeriError as error:
        raise DeriError(f"{error}\n{AGAIN}: what was made is kept in {folder}") from error
    shutil.rmtree(folder)


@contextmanager
def saving(name: str | Path | Address) -> Iterator[Path]:
    """Yield where to write what is to be at ``name``: the path itself; of an address, what is uploaded at the end."""
    there = place(name)
    if isinstance(there, Path):
        yield there
        return
    yield stage(there, anew=True)
    send(there)
