from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import deri.files
from deri.errors import DeriError
from deri.files import atomic_path, read_yaml, remove_leftovers, remove_leftovers_of, write_json, write_text


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_json_refuses_what_json_has_not(tmp_path: Path) -> None:
    write_json(tmp_path / "b" / "x.json", {"a": [1, None, "ü"]})
    assert json.loads((tmp_path / "b" / "x.json").read_text(encoding="utf-8")) == {"a": [1, None, "ü"]}
    with pytest.raises(ValueError):
        write_json(tmp_path / "y.json", float("nan"))
    assert not (tmp_path / "y.json").exists()


def test_leftovers_of_killed_writers_are_removed_and_those_of_living_ones_are_not(tmp_path: Path) -> None:
    script = (
        "import os, sys; from deri.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path: path.write_text('half'); os._exit(9)"
    )
    killed = tmp_path / "checkpoints" / "last.safetensors"
    subprocess.run([sys.executable, "-c", script, str(killed)], check=False)
    assert [path.name.startswith(".last.safetensors.") for path in killed.parent.iterdir()] == [True]
    living = tmp_path / deri.files._temporary_name("a")
    others = [living, tmp_path / ".notes.tmp", tmp_path / ".notes.1.tmp", tmp_path / "b.1.txt"]
    for path in others:
        path.touch()
    remove_leftovers_of(killed.parent / "last")
    assert list(killed.parent.iterdir())  # of another file
    remove_leftovers_of(killed)
    assert not list(killed.parent.iterdir())
    subprocess.run([sys.executable, "-c", script, str(killed)], check=False)
    remove_leftovers(tmp_path)
    assert not list(killed.parent.iterdir())
    assert all(path.exists() for path in others)


def test_what_other_hosts_write_is_theirs_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], check=True, capture_output=True)
    folder, file = (tmp_path / f".{name}.0123abcd-{int(gone.stdout)}-89abcdef.tmp" for name in ("folder", "file"))
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "part").touch()
    file.touch()
    remove_leftovers(tmp_path)
    remove_leftovers_of(tmp_path / "file")
    assert folder.is_dir()
    assert file.is_file()
    old = time.time() - 25 * 3600
    for path in (file, folder, folder / "inner"):
        os.utime(path, (old, old))
    remove_leftovers(tmp_path)
    assert folder.is_dir()  # something in it is new
    assert not file.exists()
    os.utime(folder / "inner" / "part", (old, old))
    remove_leftovers(tmp_path)
    assert not folder.exists()


def test_a_container_that_starts_again_has_the_process_id_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with atomic_path(tmp_path / "a") as ours:
        before = ours.with_name(ours.name.replace(deri.files.OF_THIS_PROCESS, "0" * 8))
        for path in (ours, before):
            path.mkdir()
        remove_leftovers(tmp_path)
        assert ours.is_dir()
        assert not before.exists()
    for kind in ("uts", "pid"):  # another host, another container
        monkeypatch.undo()
        deri.files.host_digest.cache_clear()
        here = deri.files.host_digest()
        deri.files.host_digest.cache_clear()
        if kind == "uts":
            monkeypatch.setattr("socket.gethostname", lambda: "another")
        else:
            monkeypatch.setattr("os.readlink", lambda _: "pid:[1]")
        assert deri.files.host_digest() != here
    monkeypatch.undo()
    deri.files.host_digest.cache_clear()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"a: [1", "is not valid YAML: "),
        (b"a: 1\na: 2\n", "is not valid YAML: key twice: a"),
        (b"a: \xff", "cannot be read: "),
    ],
)
def test_a_wrong_yaml_file_is_an_error_of_one_line(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DeriError, match=f"^--plan {path} {message}") as error:
        read_yaml(path, "--plan")
    assert "\n" not in str(error.value)
