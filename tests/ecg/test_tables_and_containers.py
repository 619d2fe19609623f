"""CSV, NumPy, gzip, zip archives and addresses."""

from __future__ import annotations

import functools
import gzip
import http.server
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from deri.ecg import read_ecg
from deri.errors import ReadError
from ecg.writers import LEADS, aecg, aecg_set, digital_ecg

Write = Callable[..., Path]


def reason_of(path: Path | str, **options: object) -> str:
    with pytest.raises(ReadError) as caught:
        read_ecg(path, **options)
    return caught.value.reason


def table(digital: np.ndarray, header: str, separator: str = ",", first: str = "") -> str:
    rows = [separator.join(map(str, row)) for row in digital.T]
    return "\n".join([header, *(f"{first.format(i=i)}{row}" for i, row in enumerate(rows))]) + "\n"


# --- CSV


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_with_options(tmp_path: Path, separator: str) -> None:
    digital = digital_ecg(100)
    path = tmp_path / "a.txt"
    path.write_text(table(digital[::-1], separator.join(LEADS[::-1]), separator))
    ecg = read_ecg(path, fs=500, units="uV")
    assert (ecg.fs, ecg.metadata["format"]) == (500.0, "CSV")
    np.testing.assert_allclose(ecg.signal, digital * 1e-3, rtol=1e-6)
    with pytest.raises(ReadError, match="fs=500") as caught:
        read_ecg(path, units="uV")
    assert caught.value.reason == "bad_sampling_rate"
    with pytest.raises(ReadError, match="units='mV'") as caught:
        read_ecg(path, fs=500)
    assert caught.value.reason == "bad_units"
    assert reason_of(path, fs=500, units="mm") == "bad_units"
    assert reason_of(path, fs=-1, units="mV") == "bad_sampling_rate"


def test_csv_that_states_everything(tmp_path: Path) -> None:
    digital = digital_ecg(100)
    path = tmp_path / "a.csv"
    header = "time_ms," + ",".join(f'"{name} (uV)"' for name in LEADS)
    path.write_text(table(digital, header, first="{i}0,").replace("-", "-"))
    ecg = read_ecg(path)
    assert ecg.fs == 100.0
    np.testing.assert_allclose(ecg.signal, digital * 1e-3, rtol=1e-6)
    assert reason_of(path, fs=500) == "stated_by_file"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:50] + lines[60:]))
    assert reason_of(path) == "bad_sampling_rate"


def test_csv_gaps_decimal_commas_and_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("I;II;note\n0,5;1,5;x\n;2,5;y\n")
    ecg = read_ecg(path, fs=250, units="mV")
    np.testing.assert_allclose(ecg.signal[:2], [[0.5, np.nan], [1.5, 2.5]])
    assert ecg.metadata["dropped_leads"] == ["note"]
    path.write_text("I,II\n0.5,1.5\nlow,2.5\n")
    assert reason_of(path, fs=250, units="mV") == "unreadable_signal"
    path.write_text("I,Lead I\n0.5,1.5\n")
    assert reason_of(path, fs=250, units="mV") == "duplicate_lead"
    path.write_text("I,II\n")
    assert reason_of(path, fs=250, units="mV") in ("truncated_signal", "unreadable_signal")


@pytest.mark.parametrize(
    "header",
    ["'Elapsed time','I','II'\n'seconds','mV','uV'", "'Elapsed time','I','II'\n'hh:mm:ss.mmm','mV','uV'"],
)
def test_csv_of_physionet(tmp_path: Path, header: str) -> None:
    """Quoted names, a second line of units, times as seconds or on a clock."""
    path = tmp_path / "a.csv"
    clock = "hh" in header
    times = [f"'0:00:{59 + k // 250:02d}.{4 * (k % 250):03d}'" if clock else f"{59 + k / 250:.3f}" for k in range(250)]
    path.write_text(header + "\n" + "\n".join(f"{time},{k}.5,{k}" for k, time in enumerate(times)))
    ecg = read_ecg(path)
    assert ecg.fs == 250
    np.testing.assert_allclose(ecg.signal[:2], [np.arange(250) + 0.5, np.arange(250) * 1e-3], rtol=1e-6)
    assert read_ecg(path, fs=250).fs == 250


@pytest.mark.parametrize(
    ("header", "leads"),
    [
        ('"Time, s",I,II,marker', "I II"),
        ('"Time, s","I, mV","II, mV",marker', "I II"),
        ("Time [ms],ECG-V1 (mV),II_mV,marker", "V1 II"),
        ("seconds,V1 (V3R) [mV],II (mV),marker", "- II"),
        ("seconds,aVF (inverted),II (mV),marker", "- II"),
    ],
)
def test_csv_headers_that_hold_the_separator_or_a_unit(tmp_path: Path, header: str, leads: str) -> None:
    path = tmp_path / "a.csv"
    per_second = 1000 if "ms" in header else 1
    path.write_text(header + "\n" + "\n".join(f"{per_second * k / 500},{k}.5,{-k},77" for k in range(100)))
    ecg = read_ecg(path, **({} if "mV" in header else {"units": "mV"}))
    assert ecg.fs == 500
    for values, lead in zip((np.arange(100) + 0.5, -np.arange(100)), leads.split(), strict=True):
        if lead in LEADS:
            np.testing.assert_allclose(ecg.signal[LEADS.index(lead)], values)
    assert (set(LEADS) - set(ecg.missing_leads)) <= set(leads.split()) | {"III", "aVR", "aVL", "aVF"}
    assert ecg.metadata["dropped_leads"][-1] == "marker"


@pytest.mark.parametrize(
    "text",
    [
        '"I","II","V1"\n"1",0.1,0.2,0.3\n"2",0.4,0.5,0.6\n',  # R's row names
        "I (mV),II (mV)\n0,124,0,240\n0,5,1,5\n",  # decimal commas
        "I (uV)\n24,307\n24,5\n",
        "I,II\n1,2\n3,4,5\n",
        "I,II\n1,2\n3\n",
        "I,II\n1,2\n\n3,4\n",
    ],
)
def test_csv_of_uneven_rows_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(ReadError, match=r"line \d+ has \d fields?") as caught:
        read_ecg(path, fs=500, **({} if "V)" in text else {"units": "mV"}))
    assert caught.value.reason == "unreadable_signal"


def test_csv_without_a_lead_takes_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = "".join(f"2024-01-01T10:00:00.{k};{k * 8.0};{k}\n" for k in range(100))
    path.write_text("Phone timestamp;timestamp [ms];ecg [uV]\n" + rows)
    with pytest.raises(ReadError, match='--leads "ecg=I"') as caught:
        read_ecg(path)
    assert caught.value.reason == "unknown_leads"
    ecg = read_ecg(path, leads={"ecg": "I"})
    assert ecg.fs == 125
    np.testing.assert_allclose(ecg.signal[0], np.arange(100) * 1e-3, rtol=1e-6)
    path.write_text("sample;chest\n1;0,5\n2;1,5\n")  # nothing tells that this is an ECG
    assert reason_of(path, fs=250, units="mV") == "unsupported_format"
    ecg = read_ecg(path, fs=250, units="mV", leads={"chest": "V2"})
    np.testing.assert_allclose(ecg.signal[LEADS.index("V2")], [0.5, 1.5])


def test_csv_of_a_stated_unit_and_another_option(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("I (uV)\n" + "1\n" * 9)
    assert read_ecg(path, fs=500, units="uV").signal[0, 0] == np.float32(1e-3)
    assert reason_of(path, fs=500, units="mV") == "stated_by_file"
    path.write_text("I (counts)\n" + "1\n" * 9)
    assert read_ecg(path, fs=500, gain=200).signal[0, 0] == np.float32(5e-3)


@pytest.mark.parametrize(
    ("head", "mark", "fs"),
    [
        ("Name,Ann\nSample Rate,512 hertz\n\n\nLead,Lead I\nUnit,µV\n\n", ".", 512.0),
        (
            'Naam\nApparaat,"Watch4,2"\nMeetfrequentie,511,844 hertz\n\nAfleiding,Afleiding I\nEenheid,µV\n\n',
            ",",
            511.844,
        ),
    ],
)
def test_csv_of_an_apple_watch(tmp_path: Path, head: str, mark: str, fs: float) -> None:
    path = tmp_path / "a.csv"
    values = np.arange(-50, 50) + 0.307
    path.write_text(head + "".join(f"{value:.3f}\n".replace(".", mark) for value in values))
    ecg = read_ecg(path)
    assert (ecg.fs, ecg.metadata["format"]) == (fs, "Apple Watch CSV")
    np.testing.assert_allclose(ecg.signal[0], values * 1e-3, rtol=1e-6)
    assert len(ecg.missing_leads) == 11
    path.write_text(path.read_text() + "12.5\n12,5\n")
    assert reason_of(path) == "unreadable_signal"
    path.write_text(head.replace("µV", "mm") + "1\n")
    assert reason_of(path) == "bad_header"


# --- NumPy


@pytest.mark.parametrize("fortran", [False, True])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f4", ">f8"])
def test_npy(tmp_path: Path, dtype: str, fortran: bool) -> None:
    digital = digital_ecg(100)
    for values in (digital, digital.T):
        array = values.astype(dtype)
        np.save(tmp_path / "a.npy", np.asfortranarray(array) if fortran else np.ascontiguousarray(array))
        ecg = read_ecg(tmp_path / "a.npy", fs=400, units="uV")
        assert ecg.fs == 400.0
        np.testing.assert_allclose(ecg.signal, digital * 1e-3, rtol=1e-6)
    assert reason_of(tmp_path / "a.npy", units="uV") == "bad_sampling_rate"
    assert reason_of(tmp_path / "a.npy", fs=400) == "bad_units"


def test_npy_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for values, reason in (
        (np.zeros((5, 12, 100)), "several_recordings"),
        (np.zeros((12, 12)), "unsupported_format"),
        (np.zeros((8, 100)), "unsupported_format"),
        (np.zeros((12, 9), dtype=complex), "unsupported_format"),
        (np.array([["x"] * 20] * 12), "unsupported_format"),
    ):
        np.save(path, values)
        assert reason_of(path, fs=500, units="mV") == reason
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    assert reason_of(path, fs=500, units="mV") == "unsupported_format"
    np.save(path, np.zeros((12, 100)))
    path.write_bytes(path.read_bytes()[:-1])
    assert reason_of(path, fs=500, units="mV") == "truncated_signal"


def test_npz(tmp_path: Path) -> None:
    digital = digital_ecg(100)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, ecg=digital.T, fs=250, units="uV")
    ecg = read_ecg(path)
    assert ecg.fs == 250.0
    np.testing.assert_allclose(ecg.signal, digital * 1e-3, rtol=1e-6)
    np.savez(path, signal=digital[:2], fs=250, units="mV", leads=["II", "I"])
    np.testing.assert_allclose(read_ecg(path).signal[0], digital[1], rtol=1e-6)
    np.savez(path, a=digital, b=digital)
    assert reason_of(path, fs=250, units="mV") == "unsupported_format"
    np.savez(path, ecg=digital)
    assert reason_of(path, fs=250) == "bad_units"


# --- containers


def test_gzip(tmp_path: Path) -> None:
    text = aecg(aecg_set(digital_ecg(100), LEADS)).encode()
    path = tmp_path / "a.xml.gz"
    path.write_bytes(gzip.compress(text))
    ecg = read_ecg(path)
    np.testing.assert_allclose(ecg.signal, digital_ecg(100) * 0.005, rtol=1e-6)
    assert ecg.metadata["source_file"] == f"{path}::a.xml"
    path.write_bytes(gzip.compress(text)[:-20])
    assert reason_of(path) == "truncated_signal"
    path.write_bytes(gzip.compress(b"nothing of use"))
    with pytest.raises(ReadError, match=r"a\.xml\.gz::a\.xml") as caught:
        read_ecg(path)
    assert caught.value.reason == "unsupported_format"


def test_zip(tmp_path: Path, write_record: Write, digital: np.ndarray) -> None:
    header = write_record(tmp_path, "r1", digital)
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/._r1.hea", b"")
        archive.writestr("README.txt", b"no recording")
        for file in (header, header.with_suffix(".dat")):
            archive.write(file, f"deep/er/{file.name}")
    expected = read_ecg(header).signal
    for name in (path, f"{path}::deep/er/r1.hea", f"{path}::deep/er/r1", f"{path}::deep/er/r1.dat"):
        np.testing.assert_array_equal(read_ecg(name).signal, expected)
    assert read_ecg(path).metadata["source_file"] == f"{path}::deep/er/r1.hea"
    assert reason_of(f"{path}::deep/r2.hea") == "missing_file"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x.xml", aecg(aecg_set(digital_ecg(10), LEADS)))
    with pytest.raises(ReadError, match="holds 2 recordings") as caught:
        read_ecg(path)
    assert caught.value.reason == "several_recordings"
    assert read_ecg(f"{path}::x.xml").n_samples == 10
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(header, "../r1.hea")
    assert reason_of(path) == "missing_signal_file"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "b")
    assert reason_of(path) == "no_signals"
    path.write_bytes(b"PK\3\4" + b"\xff" * 100)
    assert reason_of(path) == "unreadable_signal"


def test_zip_of_a_record_named_like_its_signal_file(tmp_path: Path, write_record: Write, digital: np.ndarray) -> None:
    header = write_record(tmp_path, "E1", digital, suffix=".mat")
    header.write_text(header.read_text().replace("E1 12", "E1.mat 12", 1))
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in (header, header.with_suffix(".mat")):
            archive.write(file, file.name)
    np.testing.assert_array_equal(read_ecg(path).signal, read_ecg(header).signal)


def test_zip_of_segments(tmp_path: Path, write_record: Write, digital: np.ndarray) -> None:
    write_record(tmp_path, "s1", digital[:600])
    write_record(tmp_path, "s2", digital[600:])
    (tmp_path / "m.hea").write_text("m/3 12 500 1600\ns1 600\n~ 100\ns2 900\n")
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("m.hea", "s1.hea", "s1.dat", "s2.hea", "s2.dat"):
            archive.write(tmp_path / name, f"x/{name}")
    np.testing.assert_array_equal(read_ecg(f"{path}::x/m.hea").signal, read_ecg(tmp_path / "m").signal)


def test_addresses(tmp_path: Path, write_record: Write, digital: np.ndarray) -> None:
    fsspec = pytest.importorskip("fsspec")
    header = write_record(tmp_path, "r1", digital)
    files = fsspec.filesystem("memory")
    for file in (header, header.with_suffix(".dat")):
        files.pipe(f"/bucket/{file.name}", file.read_bytes())
    files.pipe("/bucket/a.xml", aecg(aecg_set(digital_ecg(10), LEADS)).encode())
    try:
        for name in ("r1.hea", "r1.dat", "r1"):
            ecg = read_ecg(f"memory://bucket/{name}")
            np.testing.assert_array_equal(ecg.signal, read_ecg(header).signal)
            assert ecg.metadata["source_file"] == "memory://bucket/r1.hea"
        assert read_ecg("memory://bucket/a.xml").n_samples == 10
        assert read_ecg(f"file://{header}").n_samples == 1500
        assert reason_of("memory://bucket/none.edf") == "missing_file"
        assert reason_of("nonsense://bucket/none.edf") == "unreadable_file"
    finally:
        files.rm("/bucket", recursive=True)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which a server of this machine offers it."""
    folder = tmp_path / "web"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_http(web: tuple[Path, str], write_record: Write, digital: np.ndarray) -> None:
    pytest.importorskip("aiohttp")
    folder, address = web
    header = write_record(folder, "r1", digital)
    (folder / "deep").mkdir()
    xml = aecg(aecg_set(digital_ecg(10), LEADS)).encode()
    (folder / "deep" / "a.xml.gz").write_bytes(gzip.compress(xml))
    with zipfile.ZipFile(folder / "set.zip", "w") as archive:
        archive.writestr("x/a.xml", xml)
    for name in ("r1.hea", "r1.dat", "r1"):
        ecg = read_ecg(f"{address}/{name}")
        np.testing.assert_array_equal(ecg.signal, read_ecg(header).signal)
        assert ecg.metadata["source_file"] == f"{address}/r1.hea"
    assert read_ecg(f"{address}/deep/a.xml.gz").n_samples == 10
    assert read_ecg(f"{address}/set.zip").n_samples == 10
    assert reason_of(f"{address}/none.edf") == "missing_file"
    header.with_suffix(".dat").unlink()
    assert reason_of(f"{address}/r1") == "missing_signal_file"


def test_nobody_listens() -> None:
    pytest.importorskip("aiohttp")
    with pytest.raises(ReadError, match="cannot be fetched") as caught:
        read_ecg("http://127.0.0.1:9/r1.hea")
    assert caught.value.reason == "unreadable_file"
