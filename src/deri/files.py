"""Writing files so that a killed process never leaves half of one under its final name."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deri.errors import DeriError, Interrupted

if TYPE_CHECKING:
    from deri.remote import Address

AGAIN = "run the same command again"
"""How to go on after most accidents."""
OTHER_CACHE = f"{AGAIN}; DERI_CACHE names another folder"
"""How to go on where :func:`cache_folder` cannot be written."""
LEFT_SECONDS = 24 * 3600
"""How long nothing was written to a temporary file of another host until it counts as left."""

OF_THIS_PROCESS = uuid.uuid4().hex[:8]
"""Tells this process, and those that it forks, from every other."""
_TEMPORARY = re.compile(r"\.([0-9a-f]{8})-([0-9]+)-([0-9a-f]{8})\.tmp$")

_CURES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it writable or name another place"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "a file is where a folder should be: name another place"),
    errno.EISDIR: "it is a folder: name a file",
}


class WriteError(DeriError):
    """Files that cannot be written.

    Args:
        path: what was to be written.
        error: the system's.
        way_on: what to do after the cure.
    """

    def __init__(self, path: str | Path, error: OSError, way_on: str = "") -> None:
        super().__init__(path, error, way_on)
        self.path, self.error, self.way_on = Path(path), error, way_on

    def __str__(self) -> str:
        cause, of = self.error.strerror or str(self.error), self.error.filename
        if of is not None and self.path not in (Path(os.fsdecode(of)), *Path(os.fsdecode(of)).parents):
            cause += f" ({os.fsdecode(of)})"
        cure = _CURES.get(self.error.errno or 0, "check the place")
        return f"cannot write {self.path}: {cause}; {cure}, then {self.way_on or AGAIN}"


def address_of(path: object) -> str | None:
    """The address that became ``path``, of whose slashes :class:`pathlib.Path` has joined the first two; else None."""
    found = re.fullmatch(r"([a-z][a-z0-9+.-]+):/([^/].*)", str(path)) if isinstance(path, Path) else None
    if found is None:
        return None
    return f"{found[1]}://{'/' if found[1] in ('file', 'local') else ''}{found[2]}"


@contextmanager
def writing(path: str | Path, way_on: str = "") -> Iterator[None]:
    """Turn what the system refuses in the block into a :class:`WriteError`.

    Of nested blocks the innermost ``path`` is named, and its ``way_on`` or else the next outer one, also where the
    block is interrupted.

    Raises:
        DeriError: the path was an address.
    """
    if address := address_of(path):
        from deri.remote import check_address

        check_address(address)
        raise DeriError(f"{address}: write to a folder, then upload it: deri.remote.publish(folder, address)")
    try:
        yield
    except WriteError as error:
        raise WriteError(error.path, error.error, error.way_on or way_on) from error
    except Interrupted as error:
        error.way_on = error.way_on or way_on
        raise
    except DeriError:
        raise
    except Exception as error:
        cause = _system_error(error)
        if cause is None:
            raise
        raise WriteError(path, cause, way_on) from error


def _system_error(error: Exception) -> OSError | None:
    """The system's error: itself, or told in words by a library in Rust (safetensors, tokenizers)."""
    if isinstance(error, OSError):
        if error.errno is None and "requested and" in str(error):  # np.save to a disk without room
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return error
    told = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(told[1]), os.strerror(int(told[1]))) if told else None


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` on success, remove it on failure.

    The block may write a file or make a folder; a folder takes the place of an empty one only.

    Raises:
        WriteError: the system refuses.
    """
    path = Path(path)
    temporary = path.with_name(_temporary_name(path.name))
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if temporary.is_file():
                with open(temporary, "rb+") as handle:
                    os.fsync(handle.fileno())
            elif temporary.is_dir() and path.is_dir():  # not everywhere does a folder replace an empty one
                path.rmdir()
            os.replace(temporary, path)
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    """Remove a file or folder; what resists stays."""
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def atomic_files(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder, for libraries that name their files themselves; move its files to ``folder`` after."""
    folder = Path(folder)
    temporary = folder / _temporary_name("files")
    try:
        with writing(folder):
            temporary.mkdir(parents=True)
            yield temporary
            for file in sorted(temporary.iterdir()):
                os.replace(file, folder / file.name)
    finally:
        _remove(temporary)


def check_place(path: Path) -> None:
    """DeriError, before the work, where nothing can be written at ``path``: below a file, or in a read-only folder."""
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    if there != path and not there.is_dir():
        raise WriteError(path, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there)))
    if not os.access(there, os.W_OK):
        number = errno.EACCES
        with suppress(OSError, AttributeError):  # no statvfs on Windows
            if os.statvfs(there).f_flag & os.ST_RDONLY:
                number = errno.EROFS
        raise WriteError(path, OSError(number, os.strerror(number), str(there)))


def cache_folder() -> Path:
    """Where what can be computed again is kept: ``$DERI_CACHE``, or ``deri`` in the user's cache folder."""
    if given := os.environ.get("DERI_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deri"


@cache
def host_digest() -> str:
    """8 hex digits that tell apart where a process id means another process: hosts, their starts, and containers."""
    told = [socket.gethostname()]
    with suppress(OSError):  # Linux alone tells more than the name, which containers share
        told += [Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")]
    return digest_of(told)[:8]


def _temporary_name(name: str) -> str:
    """Of a file or folder that this process alone writes; ``_is_written`` finds that of a killed one."""
    return f".{name}.{host_digest()}-{os.getpid()}-{OF_THIS_PROCESS}.tmp"


def remove_leftovers(folder: str | Path, seconds: float = LEFT_SECONDS) -> None:
    """Remove what writers left under ``folder`` when they were killed.

    That is temporary files of processes of this host that are gone, and of other hosts those to which nothing was
    written for so many ``seconds``.
    """
    for at, folders, files in os.walk(folder):  # which passes over what vanishes meanwhile
        _remove_of_the_gone((Path(at, name) for name in (*folders, *files)), seconds)


def remove_leftovers_of(path: str | Path) -> None:
    """:func:`remove_leftovers` of the writers of one file."""
    path = Path(path)
    _remove_of_the_gone(p for p in path.parent.glob(".*.tmp") if _TEMPORARY.sub("", p.name) == f".{path.name}")


def _remove_of_the_gone(paths: Iterable[Path], seconds: float = LEFT_SECONDS) -> None:
    for path in paths:
        found = _TEMPORARY.search(path.name)
        if found and not _is_written(path, found[1], int(found[2]), found[3], seconds):
            _remove(path)


def _is_written(path: Path, host: str, process: int, of_process: str, seconds: float) -> bool:
    """Whether the writer of a temporary file or folder may live."""
    if host != host_digest():
        with suppress(OSError):
            written = max(part.lstat().st_mtime for part in (path, *path.rglob("*")))
            return time.time() - written < seconds
        return True  # it is vanishing
    if process == os.getpid():  # in a container that started again the id may be that of the one before
        return of_process == OF_THIS_PROCESS
    return _runs(process)


def _runs(process: int) -> bool:
    if os.name == "nt":  # where signal 0 is one that ends a process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is another user's
        return True
    return True


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` to ``path`` as indented JSON, atomically. NaN is refused: JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


MADE_AGAIN = "delete it, the same command makes it again"
"""What mends a damaged file that holds nothing but what was computed of others."""

SEAL = "sha256"
"""Key of a JSON object under which the checksum of the rest of it stands."""
_YAML_SEAL = f"# {SEAL}: "


def write_sealed(path: str | Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with the checksum of its content, for :func:`read_sealed`."""
    plain = json.loads(json.dumps(value, allow_nan=False))
    write_json(path, {**plain, SEAL: json_digest(plain)})


def read_sealed(path: Path | Address, cure: str) -> dict[str, Any]:
    """The object in a JSON file that deri wrote, without its checksum; one without a checksum is taken as it is.

    Raises:
        DeriError: the file is no JSON object, or was changed since; ``cure`` ends the message.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DeriError(f"{path} is damaged ({error}): {cure}") from None
    if not isinstance(value, dict):
        raise DeriError(f"{path} is damaged (no JSON object): {cure}")
    seal = value.pop(SEAL, None)
    if seal is not None and seal != json_digest(value):
        raise DeriError(f"{path} is damaged, or was changed by hand (its checksum is of another content): {cure}")
    return value


def json_digest(value: Any) -> str:
    """SHA-256 of a JSON value as hex, whatever the order of its keys."""
    return _sha256(json.dumps(value, sort_keys=True))


def digest_of(value: Any) -> str:
    """16 hex digits of :func:`json_digest`, for names and identities."""
    return json_digest(value)[:16]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hex."""
    with open(path, "rb") as handle:
        digest = hashlib.sha256()
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def shipped_text(package: str, name: str) -> str:
    """The text of a file that lies in ``package``."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def write_yaml(path: str | Path, value: Any) -> None:
    """Write plain values as YAML, atomically, under a comment with the checksum of the rest, for :func:`read_yaml`."""
    import yaml

    text = yaml.safe_dump(value, sort_keys=False)
    write_text(path, f"{_YAML_SEAL}{_sha256(text)}\n{text}")


def parse_yaml(text: str) -> Any:
    """Parse YAML into plain values.

    Raises:
        yaml.YAMLError: the text is not valid, or has a key twice: PyYAML would keep the last one in silence.
    """
    import yaml

    return yaml.load(text, Loader=_yaml_loader())


def read_yaml(path: Path, what: str) -> Any:
    """The plain values of the YAML file ``path``; ``what`` it is begins an error.

    Raises:
        DeriError: it cannot be read, is not valid, or was changed since :func:`write_yaml` wrote it.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        first, _, rest = text.partition("\n")
        if first.startswith(_YAML_SEAL) and first != f"{_YAML_SEAL}{_sha256(rest)}":
            cure = "copy it again; where the change is meant, delete its first line"
            raise DeriError(
                f"{what} {path} is damaged, or was changed by hand (its checksum is of another text): {cure}"
            )
        return parse_yaml(text)
    except (OSError, UnicodeError) as error:
        raise DeriError(f"{what} {path} cannot be read: {getattr(error, 'strerror', error)}") from None
    except yaml.YAMLError as error:
        raise DeriError(f"{what} {path} is not valid YAML: {str(error).splitlines()[0]}") from None


@cache
def _yaml_loader() -> type:
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml reads ten times as fast, and is not everywhere

    class UniqueKeyLoader(base):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            if len(set(keys)) < len(keys):
                raise yaml.YAMLError(f"key twice: {', '.join(sorted({str(k) for k in keys if keys.count(k) > 1}))}")
            return super().construct_mapping(node, deep)

    return UniqueKeyLoader
