"""Stores, models and results at addresses (``s3://bucket/path``), through fsspec: the one place that asks for them.

:func:`fetch` brings files to the cache, :func:`publish` uploads a folder, :func:`read_ranges` reads parts of files.
"""

from __future__ import annotations

import errno
import hashlib
import posixpath
import re
import shutil
import tempfile
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from deri.errors import DeriError, install, some
from deri.files import (
    AGAIN,
    OF_THIS_PROCESS,
    OTHER_CACHE,
    WriteError,
    address_of,
    atomic_path,
    cache_folder,
    digest_of,
    file_sha256,
    host_digest,
    read_sealed,
    remove_leftovers,
    write_sealed,
    writing,
)
from deri.locks import file_lock
from deri.progress import SILENT, Progress

MANIFESTS = ("store.json", "run.json", "classes.json", "index.json", "config.json")
"""Files that say what a directory of deri is, of several the first one; they are uploaded last."""

PART_BYTES = 50 * 2**20
"""Of an upload to S3 in parts; the checksum that S3 tells depends on it."""
_S3 = ("s3", "s3a")
# Here an object is there as a whole or not at all. Elsewhere it is written under another name and moved.
_OBJECT_STORES = (*_S3, "gs", "gcs", "az", "abfs", "abfss", "oss", "oci")
# Where a user or a container stands before an @, which is no secret.
_LOGINS = ("sftp", "ssh", "ftp", "smb", "hdfs", "webhdfs", "az", "abfs", "abfss", "oci")
_SECRET = re.compile(r"://[^/@]*:[^/]*@")
_AUTHORITY = re.compile(r"(?<![a-z0-9+.-])(?=([a-z0-9+.-]+)://([^/?#]*))")
# Parameters by which signed addresses and share links give access.
_SECRET_QUERY = re.compile(
    r"[?&;#]([^=&;#]*(token|secret|signature|credential|passw|pwd|session|jwt|(api|access|account).?key|key.?pair)"
    r"[^=&;#]*|[^=&;#]*key|sig|auth|authorization|code|pass)="
)
_UNTOLD = re.compile(r"(?<=://)[^/@\s\"']*@|[?;#&][^\s\"']*=[^\s\"']*")
_FETCHED = ".fetched.json"
_UNFINISHED = ".deri-upload.json"
# What tells the content of an object from another, in the listings of the file systems.
_VERSION = (
    "ETag", "etag", "md5Hash", "blob_id", "LastModified", "last_modified", "mtime", "created", "modified", "modify",
    "modificationTime",
)  # fmt: skip
_OF_THIS_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_CURES = (
    ("Credentials", "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    (
        "Permission",
        "the credentials do not allow it, or it is not there, which S3 tells only those who may list the bucket: check "
        "them, the rules of the bucket and the address",
    ),
    ("FileNotFound", "check the address"),
    ("Connect", "check the network and AWS_ENDPOINT_URL"),
)


class RemoteError(DeriError):
    """An address that gave no answer, or not the one that was asked for."""


def _version(about: dict[str, Any]) -> str:
    """A digest of what a listing says of the content of an object."""
    told = [str(about[key]) for key in _VERSION if about.get(key) is not None]
    # Where a listing tells none of these, a copy serves the process that made it and no other.
    return digest_of([str(about.get("size")), *(told or [OF_THIS_PROCESS])])


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
        """Whether there is such a file.

        Raises:
            DeriError: nobody answers, or the credentials do not allow to know.
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
        """Put a file there, whole or not at all."""
        protocol = self.url.partition("://")[0]
        with self._asking() as (files, path):
            if protocol in _OBJECT_STORES:
                files.put_file(str(file), path, **({"chunksize": PART_BYTES} if protocol in _S3 else {}))
                return
            folder, name = posixpath.split(path)
            files.makedirs(folder, exist_ok=True)
            files.put_file(str(file), aside := f"{folder}/.{name}.{host_digest()}.tmp")
            files.mv(aside, path)

    def remove(self) -> None:
        """Remove the file."""
        with self._asking() as (files, path):
            files.rm_file(path)

    def below(self) -> dict[str, dict[str, Any]]:
        """The files below, by their relative names, hidden ones too, and what their listing says."""
        with self._asking() as (files, path):
            found = files.find(path, detail=True)
            if not found and (_info(files, path) or {}).get("type") == "directory":
                files.ls(path)  # an error where it may not be read, which find passes over
        return {
            full[len(path) + 1 :]: about
            for full, about in sorted(found.items())
            if len(full) > len(path) + 1 and not full.endswith("/")  # the folder itself, as S3 consoles make it
        }

    def versions(self, suffixes: Sequence[str]) -> dict[str, str]:
        """The files below, by their relative names that end with ``suffixes``, and a digest of what their listing says.

        Hidden files are left out.

        Raises:
            DeriError: an object has a name that would leave the folder.
        """
        wanted = {name: about for name, about in self.below().items() if name.endswith(tuple(suffixes))}
        for name in wanted:
            if re.search(r"[\\\0:]", name) or not {"", ".", ".."}.isdisjoint(name.split("/")):
                raise DeriError(f"{self} holds an object with the name {name!r}, which is no file's: remove it")
        return {name: _version(about) for name, about in wanted.items() if not _is_hidden(name)}

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
    """DeriError where an address names no place, or holds a key, password or signature; these are not repeated."""
    if not url.partition("://")[2]:
        raise DeriError(f"{url}: names no bucket or host")
    if any(
        _SECRET.search(text)
        or _SECRET_QUERY.search(text)
        or any(_holds_login(*found) for found in _AUTHORITY.findall(text))
        for text in (url.lower(), unquote(url).lower())
    ):
        raise DeriError(
            "an address with a key, password or signature in it is refused, logs and results would repeat it: give "
            "credentials by AWS_PROFILE, AWS_ACCESS_KEY_ID and their like, and the address without them"
        )


def _holds_login(protocol: str, authority: str) -> bool:
    """Whether what stands between ``://`` and the path is more than a host or bucket, and a port."""
    login, at, host = authority.partition("::")[0].rpartition("@")
    if at and (":" in login or protocol not in _LOGINS):
        return True
    if protocol in _OBJECT_STORES:
        return ":" in host and not host.startswith("arn:")
    port = host.rpartition("]")[2].partition(":")[2]
    return protocol in ("http", "https", *_LOGINS) and not (port or "0").isdecimal()


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


def _cause_of(error: Exception) -> Exception:
    """What was wrong: fsspec calls every fault of HTTP a missing file, the cause knows better."""
    cause = error.__cause__
    return cause if isinstance(cause, Exception) and type(cause).__module__.startswith("aiohttp") else error


def told_by(error: Exception) -> str:
    """What was wrong on one short line, without the queries and users of addresses: servers redirect to signed ones."""
    cause = _cause_of(error)
    return _UNTOLD.sub("…", " ".join(str(cause).split()))[:160] or type(cause).__name__


def is_missing(error: Exception) -> bool:
    """Whether an error of a file system says that there is no such file, and nothing worse."""
    cause = _cause_of(error)
    missing = cause is error or getattr(cause, "status", 0) == 404
    return isinstance(error, FileNotFoundError) and missing and "bucket does not exist" not in str(error)


def _told(url: str, error: Exception) -> RemoteError:
    kinds = " ".join(kind.__name__ for kind in type(_cause_of(error)).__mro__)
    if isinstance(error, ImportError):
        package = re.search(r"[Ii]nstall (\S+)", str(error))
        protocol = url.partition("://")[0]
        cure = install("s3") if protocol in _S3 else f"pip install {package[1] if package else protocol}"
        return RemoteError(f"{url}: the package for {protocol}:// is not installed: {cure}")
    text = "there is no such file" if is_missing(error) else told_by(error)
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
    with writing(folder, OTHER_CACHE):
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # tables may hold reports
        remove_leftovers(folder.parent)
        with file_lock(folder.with_name(f"{folder.name}.lock"), wait=True):
            if not _whole(folder):  # as another process left it
                _download(source, files, folder)
    return folder


def _download(source: Address, files: Iterable[str], folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    try:
        with atomic_path(folder) as aside:
            for relative in files:
                (aside / relative).parent.mkdir(parents=True, exist_ok=True)
                (source / relative).download(aside / relative)
            write_sealed(aside / _FETCHED, {relative: file_sha256(aside / relative) for relative in files})
    except WriteError:  # where there are no locks another process may be faster
        if not _whole(folder):
            raise


def fetch_folder(source: Address, suffixes: Sequence[str]) -> Path:
    """:func:`fetch` of all files below ``source`` whose names end with ``suffixes``, as they are now.

    Raises:
        DeriError: they changed meanwhile.
    """
    before = source.versions(suffixes)
    folder = fetch(source, before)
    if source.versions(suffixes) != before:
        shutil.rmtree(folder, ignore_errors=True)  # another process may do so too
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
    encryption by a key of one's own). Files of ``folder`` take the place of those with their names; what an upload
    that was cut off left there is removed. Hidden files and locks stay here.

    Raises:
        DeriError: the address cannot be written, other files are there, or another upload to it has begun.
    """
    there = place(target)
    if isinstance(there, Path):
        raise DeriError(f"{target} is no address: copy the folder as you copy others")
    _upload(Path(folder), there, progress, over=True)


def _upload(folder: Path, target: Address, progress: Progress, *, over: bool) -> None:
    """:func:`publish`; with ``over`` in place of any files with the same names, else of those of a cut off upload."""
    sizes = {name: (folder / name).stat().st_size for name in _parts(folder)}
    if not sizes:
        raise DeriError(f"{folder} holds no files to upload: name another folder")
    left, before = _lying(target, sizes if over else ())
    # What lay there before is not named: it may be another's, and stays if this upload is cut off before it.
    new = sizes.keys() - before
    mark, own = target / _UNFINISHED, {"files": sorted(left | new), "upload": uuid.uuid4().hex}
    done, total = 0, sum(sizes.values())

    def put(names: Iterable[str]) -> None:
        nonlocal done
        for name in names:
            (target / name).upload(folder / name)
            if _unfinished(target) != own:
                raise DeriError(
                    f"{target}: another upload to it has begun, which {name} may be mixed into: when both have ended, "
                    "delete what is there, then upload one of them again"
                )
            progress.update(done := done + sizes[name], total)

    with tempfile.TemporaryDirectory() as aside:
        write_sealed(Path(aside) / _UNFINISHED, own)
        mark.upload(Path(aside) / _UNFINISHED)
    there = target.below()  # now that whoever uploads something later is told
    changed = []
    for name, size in sizes.items():
        if _is_same(folder / name, size, there.get(name, {})):
            progress.update(done := done + size, total)
        else:
            changed.append(name)
    manifests = [name for name in sizes if _is_manifest(name)]
    if changed:  # without manifests, the outermost first, it is no store or model until all is there
        for name in sorted(filter(_is_manifest, there.keys() & {*left, *sizes}), key=lambda name: name.count("/")):
            (target / name).remove()
        put(name for name in changed if name not in manifests)
    for name in target.below().keys() & (left - sizes.keys()):
        (target / name).remove()
    if changed:
        put(manifests)
    mark.remove()


def _lying(target: Address, own: Collection[str]) -> tuple[set[str], set[str]]:
    """The names of the files that an upload to ``target`` which was cut off was to write, and of all that lie there.

    Raises:
        DeriError: others than these, ``own`` and hidden ones lie there, with which an upload would mix.
    """
    left = set(_unfinished(target).get("files", ()))
    there = {*target.below()}
    others = there - left - {*own}
    taken = sorted((not _is_manifest(name), name) for name in others if not _is_hidden(name))
    if taken:
        found = some([name for _, name in taken], 3)
        raise DeriError(
            f"{target} holds {found} already, which is not written over: name another place, or delete what is there"
        )
    return left, there


def _unfinished(target: Address) -> dict[str, Any]:
    """What an upload to ``target`` that has not ended is to write there, and its own id; empty where there is none."""
    try:
        return read_sealed(target / _UNFINISHED, "delete it, and the files there if no upload of them ended")
    except RemoteError as error:
        if isinstance(error.__cause__, Exception) and is_missing(error.__cause__):
            return {}
        raise


def _parts(folder: Path) -> list[str]:
    """The names of what is uploaded of ``folder``, in this order: manifests last, of these the outermost."""
    found = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    shown = [name for name in found if not (_is_hidden(name) or name.endswith(".lock"))]
    return sorted(shown, key=lambda name: (_is_manifest(name), -name.count("/") if _is_manifest(name) else 0, name))


def _is_manifest(name: str) -> bool:
    return posixpath.basename(name) in MANIFESTS


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _info(files: Any, path: str) -> dict[str, Any] | None:
    """What a file system says of a path; None where there is nothing."""
    try:
        return dict(files.info(path))
    except FileNotFoundError as error:
        if is_missing(error):
            return None
        raise


def _is_same(file: Path, size: int, there: dict[str, Any]) -> bool:
    """Whether S3 lists the file's size and its ETag: its MD5, or that of the MD5s of the parts in which it came."""
    if there.get("size") != size or "ETag" not in there:
        return False
    whole, parts = hashlib.md5(usedforsecurity=False), b""
    with open(file, "rb") as handle:
        while block := handle.read(PART_BYTES):
            whole.update(block)
            parts += hashlib.md5(block, usedforsecurity=False).digest()
    in_parts = hashlib.md5(parts, usedforsecurity=False).hexdigest()
    digest, _, count = there["ETag"].strip('"').partition("-")
    return bool(digest == (in_parts if count else whole.hexdigest()))


def _outgoing(target: Address) -> Path:
    return cache_folder() / "outgoing" / digest_of(target.url)


@contextmanager
def stage(target: Address, *, anew: bool, alone: bool = True) -> Iterator[Path]:
    """Yield a path in the cache where what is to lie at ``target`` is made; :func:`send` uploads it.

    Args:
        target: of a file or folder.
        anew: remove what an earlier try left there.
        alone: hold the place until the block ends; False for a process that shares it with one that does.

    Raises:
        DeriError: nobody answers there, something is there already, or another process holds the place.
    """
    if "/" not in target.url.partition("://")[2]:
        raise DeriError(f"{target}: name a folder or file in it")
    _lying(target, ())
    folder = _outgoing(target)
    with ExitStack() as stack:
        with writing(folder, OTHER_CACHE):
            folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = file_lock(folder.with_name(f"{folder.name}.lock"), wait=False)
            if alone and not stack.enter_context(lock):
                raise DeriError(
                    f"{target} is being written by another command: wait for its end, or name another place"
                )
            if anew and folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(mode=0o700, exist_ok=True)
        yield folder / target.name


def send(target: Address, progress: Progress = SILENT) -> None:
    """Upload what was made at :func:`stage`'s path for ``target``, and what lies beside it; then remove it here."""
    folder = _outgoing(target)
    made = folder / target.name
    try:
        for name in _parts(folder):
            if name.partition("/")[0] != target.name:
                (target.parent / name).upload(folder / name)
        if made.is_dir():
            _upload(made, target, progress, over=False)
        elif made.is_file():
            target.upload(made)
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
    with stage(there, anew=True) as made:
        yield made
        send(there)
