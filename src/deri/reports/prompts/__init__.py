"""Prompts: how a report words each class of each task. Those shipped are the YAML files beside this module.

A file ``<task>.yaml`` says ``task``, ``version`` and ``classes: {CODE: {name, prompts, aliases?}}``. The
first prompt is the *main* one, worded as a machine report words the finding; the name alone and descriptions by
ECG criteria follow. ``codes.yaml`` adds the codes that are in no task (SCP statements, labels of other archives).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from deri.errors import DeriError, some
from deri.files import parse_yaml

TASKS = ("ptbxl-super", "ptbxl-sub", "ptbxl-form", "ptbxl-rhythm", "cpsc2018", "csn")
"""The published benchmark tasks, in the order of the result tables."""

LABELS = "labels"
"""The task of a data set with free labels: known codes, else the label's own text."""

# Statements before classes, and CSN last: its codes are literal translations ("STE" is ST elevation everywhere
# but there).
_LABEL_ORDER = ("codes", "ptbxl-form", "ptbxl-rhythm", "ptbxl-sub", "ptbxl-super", "cpsc2018", "csn")


@dataclass(frozen=True)
class _Class:
    name: str
    prompts: tuple[str, ...]
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class _PromptFile:
    task: str
    classes: dict[str, _Class]
    ambiguous: dict[str, str] = field(default_factory=dict)


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"key twice: {', '.join(twice)}")
    return dict(pairs)


def _strings(value: Any, what: str, path: str) -> tuple[str, ...]:
    """A non-empty list of non-blank strings, stripped."""
    if not isinstance(value, list) or not value or not all(isinstance(v, str) and v.strip() for v in value):
        raise DeriError(f"{path}: {what} must be a non-empty list of texts")
    return tuple(v.strip() for v in value)


def _check_keys(value: Any, required: set[str], optional: set[str], what: str, path: str) -> None:
    if not isinstance(value, dict):
        raise DeriError(f"{path}: {what} must be a mapping with the keys {', '.join(sorted(required))}")
    unknown = sorted(str(key) for key in value.keys() - required - optional)
    if unknown:
        allowed = ", ".join(sorted(required | optional))
        raise DeriError(f"{path}: unknown key {', '.join(unknown)} in {what}; allowed are {allowed}")
    missing = sorted(required - value.keys())
    if missing:
        raise DeriError(f"{path}: {what} lacks {', '.join(missing)}")


def _parse_yaml(text: str, path: str) -> _PromptFile:
    try:
        content = parse_yaml(text)
    except yaml.YAMLError as error:
        raise DeriError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    _check_keys(content, {"task", "version", "classes"}, {"ambiguous"}, "the file", path)
    if not isinstance(content["task"], str):
        raise DeriError(f"{path}: task must be a text")
    if content["version"] != 1:
        raise DeriError(f"{path}: version {content['version']!r} of a prompt file is not known; write version: 1")
    classes = content["classes"]
    if not isinstance(classes, dict) or not classes:
        raise DeriError(f"{path}: classes must be a mapping of class code to name and prompts")
    parsed = {}
    for code, entry in classes.items():
        if not isinstance(code, str):
            raise DeriError(f"{path}: class code {code!r} is not a text; put it in quotes")
        _check_keys(entry, {"name", "prompts"}, {"aliases"}, f"class {code}", path)
        if not isinstance(entry["name"], str) or not entry["name"].strip():
            raise DeriError(f"{path}: the name of class {code} must be a text")
        prompts = _strings(entry["prompts"], f"prompts of class {code}", path)
        aliases = _strings(entry["aliases"], f"aliases of class {code}", path) if "aliases" in entry else ()
        parsed[code] = _Class(entry["name"].strip(), prompts, aliases)
    ambiguous = content.get("ambiguous", {})
    if not isinstance(ambiguous, dict) or not all(isinstance(t, str) for kv in ambiguous.items() for t in kv):
        raise DeriError(f"{path}: ambiguous must be a mapping of label to explanation")
    return _PromptFile(content["task"], parsed, ambiguous)


def _parse_json(text: str, path: str) -> dict[str, list[str]]:
    try:
        content = json.loads(text, object_pairs_hook=_unique_pairs)
    except ValueError as error:
        raise DeriError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict) or not content:
        raise DeriError(f"{path} must be a JSON object of class to text, as published CKEPE prompts are")
    prompts = {}
    for code, value in content.items():
        if not isinstance(value, str | list):
            found = type(value).__name__
            raise DeriError(f"{path}: class {code!r} has a {found}; expected a text or a list of texts")
        prompts[code] = list(_strings(value if isinstance(value, list) else [value], f"class {code!r}", path))
    return prompts


@cache
def _shipped(stem: str) -> _PromptFile:
    source = resources.files("deri.reports.prompts") / f"{stem}.yaml"
    return _parse_yaml(source.read_text(encoding="utf-8"), f"{stem}.yaml")


@cache
def _label_classes() -> dict[str, _Class]:
    """Every shipped class by code; aliases after all codes, so that an alias never hides a code."""
    files = [_shipped(stem) for stem in _LABEL_ORDER]
    known: dict[str, _Class] = {}
    for file in files:
        for code, entry in file.classes.items():
            # "NT" and "NT_" are one statement: the first file in the order words it.
            if _find(code, known) is None:
                known[code] = entry
    for file in files:
        for entry in file.classes.values():
            for alias in entry.aliases:
                known.setdefault(alias, entry)
    for label in _shipped("codes").ambiguous:
        known.pop(label, None)
    return known


def _find(code: str, known: Iterable[str]) -> str | None:
    """The key of ``known`` that means ``code``: itself, or the one that differs only in outer underscores.

    PTB-XL writes NT_, STD_, _AVB; the published split files write NT, STD, AVB.
    """
    if code in known:
        return code
    return next((key for key in known if key.strip("_") == code.strip("_") != ""), None)


def _classes(task: str) -> dict[str, _Class]:
    if task == LABELS:
        return _label_classes()
    if task not in TASKS:
        close = difflib.get_close_matches(task, [*TASKS, LABELS], n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise DeriError(f"unknown task {task!r}: {hint}tasks are {', '.join(TASKS)} and {LABELS}")
    return _shipped(task).classes


def load_prompts(task: str) -> dict[str, list[str]]:
    """The shipped prompts of a task: class → prompts, the first of which is the main one.

    ``"labels"`` gives the classes of all files by code. Raises DeriError for an unknown task.
    """
    return {code: list(entry.prompts) for code, entry in _classes(task).items()}


def class_names(task: str) -> dict[str, str]:
    """The clinical name of each class of a task, for tables and figures: ``{"AFIB": "atrial fibrillation"}``."""
    return {code: entry.name for code, entry in _classes(task).items()}


def _read_prompt_file(path: str | Path) -> tuple[str | None, dict[str, list[str]]]:
    path = Path(path)
    if path.suffix.lower() not in (".json", ".yaml", ".yml"):
        raise DeriError(f"{path}: a prompt file is .yaml (ours) or .json (class → text); found {path.suffix!r}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DeriError(f"prompt file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DeriError(f"prompt file {path} is not UTF-8 text: {error.reason}") from error
    if path.suffix.lower() == ".json":
        return None, _parse_json(text, str(path))
    parsed = _parse_yaml(text, str(path))
    return parsed.task, {code: list(entry.prompts) for code, entry in parsed.classes.items()}


def load_prompt_file(path: str | Path) -> dict[str, list[str]]:
    """Read a prompt file of the user: our YAML, or a published CKEPE-style JSON of class → text (or texts).

    Raises DeriError on a missing or unreadable file, on any other shape, on an unknown key, and on a class that
    is there twice.
    """
    return _read_prompt_file(path)[1]


def prompts_for(task: str, classes: Iterable[str], file: str | Path | None = None) -> dict[str, list[str]]:
    """Prompts for exactly these classes, in their order: class → prompts, main first.

    From ``file`` where given, else from the shipped file of ``task``. A class is found by its code, outer
    underscores aside. For the task ``"labels"`` without a file, a label that is no known code is its own prompt.

    Raises DeriError that names the classes without a prompt, for a YAML file of another task, and for a label
    that means different things in different archives.
    """
    classes = list(classes)
    known: Mapping[str, list[str]]
    if file is not None:
        file_task, known = _read_prompt_file(file)
        if task != LABELS and file_task is not None and file_task != task:
            raise DeriError(
                f"{file} holds prompts of task {file_task!r}, not {task!r}: give another or change its task"
            )
        source = str(file)
    elif task == LABELS:
        known, source = _with_own_text(classes), "the shipped prompts"
    else:
        known, source = load_prompts(task), f"the shipped prompts of {task}"
    keys = {code: _find(code, known) for code in classes}
    missing = [code for code, key in keys.items() if key is None]
    if missing:
        raise DeriError(f"{source}: no prompt for {len(missing)} of {len(classes)} classes: {some(missing, 10)}")
    return {code: known[key] for code, key in keys.items() if key is not None}


def _with_own_text(labels: list[str]) -> dict[str, list[str]]:
    """The shipped prompts by code, and those of ``labels`` that are no known code: their own text."""
    known, ambiguous = load_prompts(LABELS), _shipped("codes").ambiguous
    for label in labels:
        if label in ambiguous:
            raise DeriError(f"label {label!r} is ambiguous: {ambiguous[label]}")
        if not label.strip():
            raise DeriError("an empty label has no prompt: remove it from the label column")
        if _find(label, known) is None:
            known[label] = [label]
    return known
