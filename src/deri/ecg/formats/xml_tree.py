"""Parsing XML from strangers: no entities, no external files, bounded size.

``xml.etree`` alone expands entities (a kilobyte can become gigabytes) and has no bound on the number of elements.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
import warnings
from collections.abc import Callable
from pyexpat import ExpatError, ParserCreate
from xml.etree.ElementTree import Element, TreeBuilder

import numpy as np

from deri.ecg.formats.common import Format, Options, load
from deri.ecg.recording import ECG
from deri.errors import ReadError

MAX_XML_BYTES = 64 * 2**20
MAX_ELEMENTS = 1_000_000
MAX_DEPTH = 200

_DECLARATION = re.compile(r"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
_PROLOG = re.compile(r"\s*(?:<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^>\[]*(?:\[.*?\]\s*)?>)", re.DOTALL)
_ROOT = re.compile(r"\s*<([^\s<>/!?]+)")


def xml_format(description: str, root: str, read: Callable[[str, Options], ECG]) -> Format:
    """The row of a format that is known by the name of its root element."""
    return Format(description, lambda path, head: is_xml(head) and root_name(head) == root, read)


def is_xml(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is XML."""
    text = decode(head[:1024]).lstrip("\ufeff \t\r\n")
    return text.startswith("<?xml") or re.match(r"<(?:!--|!DOCTYPE|[A-Za-z_][\w:.-]*[\s>/])", text) is not None


def decode(data: bytes) -> str:
    """The text of an XML file: by its byte order mark, else by its declaration, else UTF-8, else Latin-1.

    Files exported through a string keep ``encoding="utf-16"`` in UTF-8 bytes; the bytes decide, not the declaration.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    if data.startswith(codecs.BOM_UTF8):
        return data[3:].decode("utf-8", errors="replace")
    if data[:4] in (b"<\0?\0", b"<\0!\0") or (data[:1] == b"<" and data[1:2] == b"\0"):
        return data.decode("utf-16-le", errors="replace")
    if data[:2] == b"\0<":
        return data.decode("utf-16-be", errors="replace")
    declared = _DECLARATION.match(data[:200].decode("latin-1"))
    for name in (declared.group(1) if declared else "utf-8", "utf-8"):
        if re.match(r"(?i)utf[-_]?(?:16|32|7)|unicode|idna|punycode|.*escape|hex|base64|rot|zip|bz2|zlib", name):
            continue
        try:
            return data.decode(name)
        except (UnicodeDecodeError, LookupError):
            continue
    return data.decode("latin-1")


def parse_xml(path: str) -> Element:
    """The root element of an XML file, namespaces removed from the names of elements and attributes.

    Raises:
        ReadError: ``too_long`` (size, number of elements), ``bad_xml`` (not well-formed, entities, nesting),
            ``unreadable_file``.
    """
    text = decode(load(path, MAX_XML_BYTES)).lstrip("\ufeff \t\r\n\0")
    parser = ParserCreate("utf-8")
    parser.buffer_text = True
    builder = TreeBuilder()
    count = depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal count, depth
        count, depth = count + 1, depth + 1
        if count > MAX_ELEMENTS:
            raise ReadError(f"{path}: more than {MAX_ELEMENTS} XML elements are no ECG", "too_long")
        if depth > MAX_DEPTH:
            raise ReadError(f"{path}: its XML elements are nested more than {MAX_DEPTH} deep", "bad_xml")
        builder.start(_local(name), {_local(key): value for key, value in attributes.items()})

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_local(name))

    def refuse(*_: object) -> int:
        raise ReadError(f"{path}: declares or uses XML entities, which are not expanded for safety", "bad_xml")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = refuse
    parser.SkippedEntityHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    try:
        parser.Parse(text.encode("utf-8", errors="replace"), True)
        return builder.close()
    except ExpatError as error:
        raise ReadError(
            f"{path}: is not well-formed XML ({error}); the file is damaged or cut off", "bad_xml"
        ) from None


def _local(name: str) -> str:
    return name.rpartition(":")[2]


def root_name(data: bytes) -> str:
    """The name of the root element, from the beginning of a file; empty if it is not there."""
    text = decode(data).lstrip("\ufeff")
    at = 0
    while match := _PROLOG.match(text, at):
        at = match.end()
    root = _ROOT.match(text, at)
    return _local(root.group(1)) if root else ""


def text_of(element: Element | None, path: str = ".") -> str:
    """The text of the element at ``path`` with single blanks, empty if there is none."""
    found = element.find(path) if element is not None else None
    return " ".join("".join(found.itertext()).split()) if found is not None else ""


def attribute(element: Element | None, path: str, name: str) -> str:
    """An attribute of the element at ``path``, empty if there is none."""
    found = element.find(path) if element is not None else None
    return found.get(name, "").strip() if found is not None else ""


def parse_numbers(path: str, name: str, text: str) -> np.ndarray:
    """Numbers between blanks as float64 (n,), or ``unreadable_signal``."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            # Parses in C without a Python object per number; anything unparsable is an error, not an early end.
            return np.fromstring(text, dtype=np.float64, sep=" ") if text.strip() else np.empty(0)
        except (DeprecationWarning, ValueError):
            raise ReadError(f"{path}: the samples of {name[:40]} are not all numbers", "unreadable_signal") from None


def decode_base64(path: str, text: str) -> bytes:
    """The bytes of base64 text with white space in it, or ``unreadable_signal``."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ReadError(f"{path}: its samples are not valid base64 ({error})", "unreadable_signal") from None
