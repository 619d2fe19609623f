from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deri.ecg import read_ecg
from deri.errors import ReadError

Write = Callable[..., Path]


def error_of(path: Path | str) -> ReadError:
    with pytest.raises(ReadError) as caught:
        read_ecg(path)
    return caught.value


def test_a_record_has_three_names(tmp_path: Path, write_record: Write, digital: np.ndarray) -> None:
    path = write_record(tmp_path, "00001_hr", digital)
    signals = [read_ecg(given).signal for given in (path, str(path)[:-4], path.with_suffix(".dat"))]
    assert np.array_equal(signals[0], signals[1])
    assert np.array_equal(signals[0], signals[2])


def test_a_record_name_may_hold_dots(tmp_path: Path, write_record: Write, digital: np.ndarray) -> None:
    path = write_record(tmp_path, "a.b", digital)
    assert read_ecg(tmp_path / "a.b").n_samples == 1500
    assert read_ecg(path).n_samples == 1500


def test_what_is_missing_is_named(tmp_path: Path, write_record: Write, digital: np.ndarray) -> None:
    assert error_of(tmp_path / "none").reason == "missing_file"
    assert error_of(tmp_path / "none.hea").reason == "missing_file"
    assert error_of(tmp_path / "no_folder" / "none.dat").reason == "missing_file"
    path = write_record(tmp_path, "r", digital)
    path.unlink()
    for given in (path, path.with_suffix(""), path.with_suffix(".dat")):
        error = error_of(given)
        assert error.reason == "missing_header"
        assert "r.hea" in str(error)
    path = write_record(tmp_path, "s", digital)
    path.with_suffix(".dat").unlink()
    for given in (path, path.with_suffix(".dat")):
        error = error_of(given)
        assert error.reason == "missing_signal_file"
        assert "s.dat" in str(error)


@pytest.mark.parametrize(
    ("name", "head", "kind"),
    [
        ("a.xml", b'<?xml version="1.0"?><svg/>', "root <svg>"),
        ("a.pdf", b"%PDF-1.4", "a PDF"),
        ("a.edf", b"0       " + b" " * 100, "no known format"),
        ("notes.txt", b"hello", "no known format"),
        ("empty", b"", "empty"),
    ],
)
def test_unknown_files_say_what_they_are_and_what_is_supported(
    tmp_path: Path, name: str, head: bytes, kind: str
) -> None:
    path = tmp_path / name
    path.write_bytes(head)
    error = error_of(path)
    assert error.reason == "unsupported_format"
    assert kind in str(error)
    assert ("AnnotatedECG" if name == "a.xml" else "WFDB") in str(error)
    assert str(path) in str(error)


def test_a_folder_is_not_a_recording(tmp_path: Path) -> None:
    assert error_of(tmp_path).reason == "unsupported_format"
    (tmp_path / "x.hea").mkdir()
    assert error_of(tmp_path / "x").reason == "unreadable_file"


def test_files_that_may_not_be_opened(tmp_path: Path, write_record: Write, digital: np.ndarray, monkeypatch) -> None:
    path = write_record(tmp_path, "r", digital)
    (tmp_path / "a.xml").write_text("<?xml")
    really_open = builtins.open
    for forbidden in (".hea", ".dat", ".xml"):

        def refuse(file, *args, forbidden=forbidden, **options):
            if str(file).endswith(forbidden):
                raise PermissionError(13, "Permission denied")
            return really_open(file, *args, **options)

        monkeypatch.setattr(builtins, "open", refuse)
        error = error_of(tmp_path / "a.xml" if forbidden == ".xml" else path)
        assert error.reason == "unreadable_file"
        assert "Permission denied" in str(error)
