"""What SECURITY.md says of the code: no pickle, no code of others, no entities, no bombs."""

from __future__ import annotations

import ast
import gzip
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import deri
from deri.errors import ReadError

ROOT = Path(__file__).resolve().parents[1]
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "shelve", "marshal", "jsonpickle"}
REFUSED = {  # call → whether its keywords make it safe
    "load": lambda name, words: (
        name not in ("torch.load", "np.load", "numpy.load", "yaml.load", "joblib.load")
        or (name == "torch.load" and words.get("weights_only") is True)
        or (name in ("np.load", "numpy.load") and words.get("allow_pickle", False) is False)
    ),
    "save": lambda name, words: name != "torch.save",
    "dump": lambda name, words: name != "joblib.dump",
    "read_pickle": lambda name, words: False,
    "to_pickle": lambda name, words: False,
    "eval": lambda name, words: name != "eval",  # module.eval() is torch's
    "exec": lambda name, words: name != "exec",
}


def calls(tree: ast.AST) -> Iterator[tuple[int, str, dict[str, object]]]:
    """Line, dotted name, and constant keywords of each call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            words = {word.arg or "**": getattr(word.value, "value", ...) for word in node.keywords}
            yield node.lineno, ast.unparse(node.func), words


def unsafe(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        found += [f"import {name}" for name in (module, *names) if name.split(".")[0] in PICKLES]
        if module in ("xml.etree.ElementTree", "xml.etree"):
            found += [f"XML {name}" for name in names if name in ("parse", "fromstring", "iterparse", "XML")]
        found += [f"import {name}" for name in (module, *names) if name.startswith(("xml.sax", "xml.dom", "lxml"))]
    for line, name, words in calls(tree):
        check = REFUSED.get(name.rpartition(".")[2])
        if check is not None and not check(name, words):
            found.append(f"line {line}: {name}")
        if words.get("trust_remote_code", False) is not False or words.get("shell", False) is not False:
            found.append(f"line {line}: {name}({words})")
    return found


def test_no_source_reads_pickles_runs_code_of_others_or_parses_xml_on_its_own() -> None:
    for file in sorted((ROOT / "src").rglob("*.py")):
        found = unsafe(ast.parse(file.read_text(encoding="utf-8")))
        if file.name == "files.py":  # the one place that reads YAML: by a loader below SafeLoader
            found = [one for one in found if not one.endswith("yaml.load")]
        assert not found, (file, found)


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from cloudpickle import loads", "torch.load(p)", "torch.load(p, weights_only=False)",
        "np.load(p, allow_pickle=True)", "joblib.load(p)", "yaml.load(t)", "pd.read_pickle(p)", "eval(t)",
        "AutoModel.from_pretrained(p, trust_remote_code=True)", "subprocess.run(c, shell=True)",
        "from xml.etree.ElementTree import fromstring", "import lxml.etree",
    ],
)  # fmt: skip
def test_what_is_looked_for_is_found(code: str) -> None:
    assert unsafe(ast.parse(code))


def test_yaml_makes_plain_values_alone() -> None:
    import yaml

    from deri.files import parse_yaml

    with pytest.raises(yaml.YAMLError):
        parse_yaml("!!python/object/apply:os.system ['true']")


XML_ROOTS = ("AnnotatedECG", "RestingECG", "restingecgdata", "CardiologyXML", "ECG", "Observation")
ENTITIES = {
    "billion laughs": '<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">',
    "external": '<!ENTITY c SYSTEM "file://{secret}">',
    "parameter": '<!ENTITY % p SYSTEM "file://{secret}"> %p; <!ENTITY c "x">',
}


@pytest.mark.parametrize("kind", ENTITIES)
@pytest.mark.parametrize("root", XML_ROOTS)
def test_every_xml_reader_refuses_entities(root: str, kind: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the-secret")
    path = tmp_path / "ecg.xml"
    declared = ENTITIES[kind].format(secret=secret)
    path.write_text(f'<?xml version="1.0"?><!DOCTYPE {root} [{declared}]><{root}>&c;</{root}>')
    with pytest.raises(ReadError) as caught:
        deri.read_ecg(path)
    assert caught.value.reason in ("bad_xml", "unsupported_format")
    assert "the-secret" not in str(caught.value)


def test_expanding_files_are_refused_while_they_expand(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    zeros = bytes(2**20)
    with gzip.open(tmp_path / "ecg.edf.gz", "wb", compresslevel=9) as file:
        for _ in range(40):
            file.write(zeros)
    with (
        zipfile.ZipFile(tmp_path / "ecg.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("ecg.edf", "w") as member,
    ):
        member.write(b"0       " + b" " * 244 + b"1   ")
        for _ in range(40):
            member.write(zeros)
    with h5py.File(tmp_path / "ecg.h5", "w") as file:
        file.create_dataset("tracings", (12, 2**30), np.float32, chunks=(1, 2**20), compression="gzip")
    for path in tmp_path.iterdir():
        assert path.stat().st_size < 2**20
        with pytest.raises(ReadError) as caught:
            deri.read_ecg(path, **({"fs": 500, "units": "mV"} if path.suffix == ".h5" else {}))
        assert caught.value.reason == "too_long", path
