"""Directories of models, fine-tuned heads and report writers: which kind one is, atomic saving, checked loading.

Each holds safetensors, a JSON manifest with format and version, and mostly a card. Nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from deri._version import __version__
from deri.errors import DeriError, some
from deri.files import file_sha256, read_sealed, write_sealed, write_text
from deri.models.hub import MODEL_FILES, hub_folder
from deri.models.tensors import load_tensors, save_tensors
from deri.remote import MANIFESTS, Address, fetch_folder, place


@dataclass(frozen=True)
class Kind:
    """A kind of directory that this module saves and loads.

    Attributes:
        name: in messages, "model".
        format: of its manifest.
        version: of its manifest, that this deri reads.
        cure: what to give instead of another kind of directory.
        inside: folder of a run that holds one.
        manifest: file name.
        weights: file name.
    """

    name: str
    format: str
    version: int
    cure: str
    inside: str
    manifest: str = "config.json"
    weights: str = "model.safetensors"


MODEL = Kind(
    "model",
    "deri-model",
    1,
    "give a model directory, a run, a hub id OWNER/NAME, random:RECIPE, deri-open or deri-sim; released checkpoints: "
    "deri convert",
    "model",
)
HEAD = Kind(
    "fine-tuned model",
    "deri-head",
    1,
    "give what deri finetune or deri probe --save wrote",
    "model",
    manifest="classes.json",
    weights="head.safetensors",
)
WRITER = Kind(
    "report writer",
    "deri-report-writer",
    2,  # the memory ``tokens`` holds the tokens before token attention
    "give a writer directory, a run of deri report train, or a hub id OWNER/NAME",
    "writer",
)

_FILES = "files_sha256"  # of a manifest: checksums of the other files

# What a directory is by the format that a manifest in it states; of several manifests the first one counts.
FORMATS = {
    "deri-store": "a store",
    "deri-run": "a run of deri pretrain",
    "deri-report-run": "a run of deri report train",
    HEAD.format: "a fine-tuned model",
    "deri-index": "a search index",
    MODEL.format: "a model",
    WRITER.format: "a report writer",
}


def format_of(path: Path) -> str | None:
    """The format of a deri directory (a key of ``FORMATS``), ``transformers``, or None for anything else."""
    for name in MANIFESTS:
        content = _json(path / name) if (path / name).is_file() else None
        if isinstance(content, dict):
            if content.get("format") in FORMATS:
                return str(content["format"])
            if name == "config.json" and "model_type" in content:
                return "transformers"
    return None


def describe(path: Path) -> str:
    """What a path is, with its article: "a store", "a file", "a folder without anything of deri"."""
    if path.is_file():
        exported = path.suffix in (".onnx", ".pt2")
        return "an exported encoder, which deri embed takes" if exported else "a file"
    if not path.is_dir():
        return "not there"
    found = format_of(path)
    if found is None and format_of(path / HEAD.inside) == HEAD.format:
        return "what deri finetune wrote"
    if found == "transformers":
        return "a model of transformers"
    return FORMATS[found] if found else f"a directory without {', '.join(MANIFESTS[:-1])} or {MANIFESTS[-1]}"


def find(kind: Kind, name: str | Path) -> Path:
    """The directory of ``kind`` that ``name`` means: itself, that of a run, a copy of one at an address or of the hub.

    Raises:
        DeriError: there is none; the message says what ``name`` is instead.
    """
    if isinstance(address := place(name), Address):
        name = _fetched(kind, address)
    path, text = Path(name).expanduser(), str(name)
    for folder in (path, path / kind.inside):
        if (folder / kind.manifest).is_file() and format_of(folder) in (kind.format, HEAD.format, None):
            return folder
    if format_of(path) in ("deri-run", "deri-report-run"):
        raise DeriError(f"{kind.name} {path} is {describe(path)} without a {kind.name} (yet); {kind.cure}")
    if path.exists():
        raise wrong_kind(kind, path)
    if path.is_absolute() or text.startswith((".", "~")) or text.count("/") != 1:
        raise DeriError(f"{kind.name} {name}: no such directory or run; {kind.cure}")
    return hub_folder(kind.name, text, f"check the name, or {kind.cure}")


def _fetched(kind: Kind, source: Address) -> Path:
    """The copy of a directory at an address."""
    for folder in (source, source / kind.inside):
        if (folder / kind.manifest).is_file():
            return fetch_folder(folder, MODEL_FILES)
    raise DeriError(f"{kind.name} {source}: no {kind.manifest} is to be seen there; {kind.cure}")


def wrong_kind(kind: Kind, path: Path) -> DeriError:
    """The error that says what ``path`` is, where it should be of ``kind``."""
    return DeriError(f"{path} is {describe(path)}, not a {kind.name}; {kind.cure}")


def read_manifest(kind: Kind, folder: Path) -> dict[str, Any]:
    """The manifest of a directory, checked for format and version."""
    path, cure = folder / kind.manifest, f"copy or make the {kind.name} again"
    content = read_sealed(path, cure)
    if content.get("format") != kind.format:
        raise wrong_kind(kind, folder)
    if content.get("version") != kind.version:
        raise DeriError(
            f"{path} is of {kind.name} format {content.get('version')}, this deri {__version__} reads {kind.version}; "
            "use the deri version that wrote it"
        )
    for name, digest in content.pop(_FILES, {}).items():
        if not (folder / name).is_file() or file_sha256(folder / name) != digest:
            raise DeriError(f"{folder / name} is missing, damaged, or was changed by hand; {cure}")
    return content


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return error


def save(
    kind: Kind,
    folder: Path,
    weights: dict[str, Tensor],
    content: dict[str, Any],
    *,
    files: Sequence[str] = (),
    card: str | None = None,
) -> None:
    """Write weights, card and manifest, in this order; each file appears whole or not at all.

    The manifest holds the checksums of ``files`` that lie in the folder already; each file holds its own.
    """
    save_tensors(folder / kind.weights, weights)
    if card is not None:
        write_text(folder / "README.md", card)
    digests = {_FILES: {name: file_sha256(folder / name) for name in sorted(files)}} if files else {}
    content = {"format": kind.format, "version": kind.version, **content, **digests}
    write_sealed(folder / kind.manifest, without_paths(content))


def without_paths(content: Any) -> Any:
    """Content without what transformers notes in its configs about where on this machine it loaded them from."""
    if not isinstance(content, dict):
        return content
    return {key: without_paths(value) for key, value in content.items() if key != "_name_or_path"}


def new_folder(kind: Kind, directory: str | Path) -> Path:
    """The directory to save in, made where it is missing."""
    folder = Path(directory)
    if folder.is_file():
        raise DeriError(f"{folder} is a file; name a directory to save the {kind.name} in")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def card(title: str, tags: list[str], text: str) -> str:
    """A card for the hub: ``README.md`` of a directory."""
    head = f"---\nlibrary_name: deri\ntags: [{', '.join(tags)}]\n---\n\n# {title}\n"
    return f"{head}\n{text}\nWritten by deri {__version__}.\n"


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Weights on the CPU; those that share their storage with earlier ones (a tied output layer) are left out."""
    tied = _tied(module)
    return {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items() if name not in tied}


def _tied(module: nn.Module) -> set[str]:
    """Names of weights that share their storage with an earlier one."""
    tied: set[str] = set()
    seen: set[tuple[int, tuple[int, ...]]] = set()
    for name, value in module.state_dict().items():
        key = (value.data_ptr(), tuple(value.shape))
        if value.numel() and key in seen:
            tied.add(name)
        seen.add(key)
    return tied


def read_weights(kind: Kind, folder: Path) -> dict[str, Tensor]:
    """The tensors of a directory."""
    return load_tensors(folder / kind.weights, f"copy or make the {kind.name} again")[0]


def load_weights(
    model: nn.Module, weights: dict[str, Tensor], source: str | Path, optional: tuple[str, ...] = ()
) -> None:
    """Load ``weights``; an unknown, missing or misshapen tensor is an error that names it.

    Tensors whose names start with one of ``optional`` may be missing, and those that share another's storage.
    """
    own, tied = model.state_dict(), _tied(model)
    unknown = [name for name in weights if name not in own]
    missing = [name for name in own if not (name in weights or name in tied or name.startswith(optional))]
    shapes = [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    problems = [
        f"{what} {some(names, 8)}"
        for what, names in (("unknown tensors", unknown), ("missing tensors", missing), ("shapes:", shapes))
        if names
    ]
    if problems:
        raise DeriError(f"{source} does not fit the model: {'; '.join(problems)}")
    model.load_state_dict(weights, strict=False)
