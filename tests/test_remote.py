"""Stores and models at addresses: of an S3 server of this machine, and of fsspec's memory and files."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deri import remote
from deri.cli.index import _Run
from deri.ecg import read_ecg
from deri.errors import DeriError
from deri.files import write_text
from deri.generation.writer import ReportWriter
from deri.models import load_model
from deri.remote import Address
from deri.store import Store
from deri.store.beside import arrays_beside
from deri.store.merge import merge_stores
from support import tiny
from support.command import run
from support.s3 import Server, s3_server
from support.stores import simulated_store

fsspec = pytest.importorskip("fsspec")

ROW = 12 * 5000 * 2  # bytes
MARK = ".deri-upload.json"


@pytest.fixture(scope="module")
def s3() -> Iterator[Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DERI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of 70 recordings: shards of 64 and 6 rows."""
    return simulated_store(tmp_path_factory.mktemp("local"), 70, seed=3)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "m"
    tiny.model().save_pretrained(folder)
    return folder


@pytest.fixture
def url(s3: Server, local: Store, request: pytest.FixtureRequest) -> str:
    """A new address with a copy of the store; the log of the server begins after it."""
    there = f"s3://ecg/{request.node.name.replace('[', '-').replace('/', '-').rstrip(']')}/store"
    remote.publish(local.path, there)
    s3.log.clear()
    return there


def files() -> Any:
    return fsspec.filesystem("s3")


def flip(url: str, at: int) -> None:
    """Change one bit of an object."""
    content = bytearray(files().cat_file(url))
    content[at] ^= 1
    files().pipe_file(url, bytes(content))


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert len(text.splitlines()) <= 2
    return text


# --- reading ---------------------------------------------------------------------------------------------------------


def test_ten_rows_take_the_bytes_of_ten_rows(s3: Server, url: str, local: Store) -> None:
    store = Store.open(url)
    assert not s3.asked("GET", "/signals/")
    np.testing.assert_array_equal(store.signals_int16(range(20, 30)), local.signals_int16(range(20, 30)))
    assert sorted(request.sent for request in s3.asked("GET", "/signals/")) == [128, 10 * ROW]
    assert (store.fingerprint, store.provenance["path"]) == (local.fingerprint, url)
    assert store.index.equals(local.index)
    assert store.reports == local.reports


@pytest.mark.parametrize("protocol", ["s3", "memory", "file"])
def test_rows_in_any_order_are_those_of_the_disk(
    protocol: str, s3: Server, local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deri.store.ranges.AT_ONCE", 7)
    monkeypatch.setattr("deri.store.ranges.MOST", 3)
    there = {"s3": "s3://ecg/any-order", "memory": "memory://any/order", "file": f"file://{tmp_path}/any order"}[
        protocol
    ]
    remote.publish(local.path, there)
    store = Store.open(there + "/")
    rows = np.random.default_rng(0).integers(0, 70, 40)
    np.testing.assert_array_equal(store.signals(rows), local.signals(rows))
    np.testing.assert_array_equal(store.signals([]), local.signals([]))
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.signals([69, 0]), local.signals([69, 0]))
    assert again.name == there.rpartition("/")[2]


def test_a_path_that_was_an_address_is_one(url: str) -> None:
    assert Store.open(Path(url)).provenance["path"] == url


@pytest.mark.parametrize(
    ("file", "at"),
    [
        ("signals/shard-00000.npy", 128 + 5 * ROW + 77),
        ("signals/shard-00000.npy", 30),
        ("index.parquet", 100),
        ("reports.parquet", 100),
        ("store.json", 100),
    ],
)
def test_a_flipped_bit_is_named(s3: Server, url: str, file: str, at: int) -> None:
    flip(f"{url}/{file}", at)
    with pytest.raises(DeriError) as error:
        Store.open(url).signals(range(10))
    assert f"{url}/{file}" in one_line(error)


def test_damaged_rows_are_left_out_on_request(url: str) -> None:
    flip(f"{url}/signals/shard-00001.npy", 128 + 2 * ROW)
    store = Store.open(url, skip_damaged=True)
    assert store.left_out.tolist() == [66]


def test_a_row_that_changes_after_it_was_read_is_noticed(url: str) -> None:
    store = Store.open(url)
    store.signals([3])
    flip(f"{url}/signals/shard-00000.npy", 128 + 3 * ROW)
    with pytest.raises(DeriError, match="not what was written"):
        store.signals([3])


@pytest.mark.parametrize("damage", ["gone", "short"])
def test_a_shard_that_is_gone_or_cut_short_is_named(url: str, damage: str) -> None:
    shard = f"{url}/signals/shard-00001.npy"
    content = files().cat_file(shard)
    opened = Store.open(url)
    files().rm_file(shard)
    if damage == "short":
        files().pipe_file(shard, content[:-1])
    with pytest.raises(DeriError, match=r"lacks signals/shard-00001|shard-00001.npy has 720,127 bytes"):
        Store.open(url)
    with pytest.raises(DeriError, match="no such file|ends before byte"):  # while it is used
        opened.signals(range(64, 70))


def test_no_answer_says_nothing_of_rows(s3: Server, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(url)

    def fail(*_: Any, **__: Any) -> None:
        raise remote.RemoteError("connection lost")

    monkeypatch.setattr("deri.store.ranges.read_ranges", fail)
    with pytest.raises(DeriError, match="connection lost"):
        store.damaged()


def test_stores_at_addresses_are_merged(url: str, local: Store, tmp_path: Path) -> None:
    other = simulated_store(tmp_path / "other", 5, seed=8)
    merge_stores([local.path, other.path], tmp_path / "of-paths", resplit=True)
    merge_stores([url, other.path], tmp_path / "of-addresses", resplit=True)
    for file in sorted((tmp_path / "of-paths").rglob("*.*")):
        if file.is_file():
            assert (
                file.read_bytes() == (tmp_path / "of-addresses" / file.relative_to(tmp_path / "of-paths")).read_bytes()
            )


# --- models ----------------------------------------------------------------------------------------------------------


def test_a_model_is_fetched_once_and_anew_when_it_changed(s3: Server, model_dir: Path, cache: Path) -> None:
    there = "s3://ecg/models/changing"
    remote.publish(model_dir, there)
    files().pipe_file(f"{there}/checkpoint.bin", b"not of a model")
    first = load_model(there)
    expected = load_model(model_dir).encode_text(["sinus rhythm"])
    np.testing.assert_array_equal(first.encode_text(["sinus rhythm"]), expected)
    assert not s3.asked("GET", "checkpoint.bin")

    s3.log.clear()
    load_model(there)
    assert not s3.asked("GET", "model.safetensors")

    (weights,) = cache.rglob("model.safetensors")  # the copy is damaged
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    np.testing.assert_array_equal(load_model(there).encode_text(["sinus rhythm"]), expected)

    files().rm(there, recursive=True)
    tiny.model(seed=7).save_pretrained(there)
    assert not np.array_equal(load_model(there).encode_text(["sinus rhythm"]), expected)


def test_a_run_lends_its_model(s3: Server, model_dir: Path) -> None:
    remote.publish(model_dir, "s3://ecg/runs/r/model")
    assert load_model("s3://ecg/runs/r").config == load_model(model_dir).config


def test_a_model_that_changes_while_it_is_fetched_is_refused(
    s3: Server, model_dir: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = "s3://ecg/models/raced"
    remote.publish(model_dir, there)

    def change(method: str, path: str) -> None:
        if path.endswith("model.safetensors") and method == "GET":
            monkeypatch.setattr(s3, "before", lambda *_: None)
            files().pipe_file(f"{there}/README.md", b"another")

    monkeypatch.setattr(s3, "before", change)
    with pytest.raises(DeriError, match="changed while it was fetched"):
        load_model(there)
    assert not list(cache.rglob("config.json"))


def test_a_flipped_bit_of_a_model_is_named(s3: Server, model_dir: Path) -> None:
    remote.publish(model_dir, "s3://ecg/models/flipped")
    flip("s3://ecg/models/flipped/model.safetensors", -5)
    with pytest.raises(DeriError, match=r"s3-ecg-models-flipped.*model.safetensors is damaged"):
        load_model("s3://ecg/models/flipped")


@pytest.mark.parametrize("name", ["../evil", "x/../../../evil.json", "/etc/evil.json", "a\\b.json", "c:evil.json"])
def test_names_that_leave_the_folder_are_refused(s3: Server, model_dir: Path, tmp_path: Path, name: str) -> None:
    there = f"memory://hostile/{len(name)}"
    remote.publish(model_dir, there)
    memory = fsspec.filesystem("memory")
    memory.store[f"/hostile/{len(name)}/{name}.json"] = memory.store[f"/hostile/{len(name)}/config.json"]
    with pytest.raises(DeriError, match="which is no file's"):
        load_model(there)
    assert not list(tmp_path.rglob("*evil*"))


def test_what_is_no_model_is_said(s3: Server, url: str) -> None:
    with pytest.raises(DeriError, match="no config.json"):
        load_model(url)
    with pytest.raises(DeriError, match="no config.json"):
        ReportWriter.from_pretrained("s3://ecg/nothing")


# --- errors and secrets ----------------------------------------------------------------------------------------------

SECRET = "wJalrXUtnFEMI"
DOORS: dict[str, Callable[[str], object]] = {"store": Store.open, "model": load_model, "recording": read_ecg}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "address",
    [
        f"s3://AKIA:{SECRET}@ecg/x",
        f"s3://AKIA:{SECRET}/x+y@ecg/x",
        f"https://me:{SECRET}@host/x",
        f"s3://AKIA:{SECRET}",
        f"https://{SECRET}@host/x",
        f"s3://{SECRET}@ecg/x",
        f"HTTPS://{SECRET}@host:8000/x",
        f"https://me:pass/{SECRET}@host/x",
        f"https://host/x.dcm?X-Amz-Date=1&X-Amz-Signature={SECRET}",
        f"https://host/x.dcm?X%2DAmz%2DSignature={SECRET}",
        f"https://me:12%2F{SECRET}@host/x",
        f"https://host/x?rlkey={SECRET}&dl=0",
        f"https://host/x?sv=2024-11-04&sig={SECRET}",
        f"https://host/x?download=1&token={SECRET}",
        f"https://host/x?AWSAccessKeyId={SECRET}&Expires=1",
        f"https://host/x#access_token={SECRET}",
        f"abfs://container@account.dfs.core.windows.net/x?sig={SECRET}",
        f"simplecache::https://host/x?api_key={SECRET}",
        f"zip://a.csv::https://{SECRET}@host/x.zip",
    ],
)
def test_addresses_with_keys_are_refused_and_not_repeated(
    door: str, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DeriError, match="is refused") as error:
        DOORS[door](address)
    assert SECRET not in one_line(error)
    assert run("info", address) == 2
    assert run("retrieval", "--model", "x", "--data", address, "--out", address) == 2
    assert SECRET not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "address",
    [
        "sftp://me@host:22/x",
        "abfs://container@account.dfs.core.windows.net/x",
        "oci://bucket@namespace/x",
        "https://host:8000/x?format=original&id=10.13026",
        "https://[2001:db8:0:0:0:0:0:1]:8000/x",
        "s3://arn:aws:s3:us-east-1:1:accesspoint/name/a@b",
        "file:///C:/x@y",
        "zip://a.csv::s3://ecg/x.zip",
    ],
)
def test_addresses_without_secrets_pass(address: str) -> None:
    remote.check_address(address)
    remote.check_address(f"--out={address}")


@pytest.mark.parametrize(
    "text",
    [
        f"403, url='https://a.b/x?X-Amz-Signature={SECRET}'",
        f"403, url='https://a.b/x;token={SECRET}'",
        f"cannot reach http://me:{SECRET}@minio:9000/x",
    ],
)
def test_what_servers_say_is_told_without_their_secrets(text: str) -> None:
    told = remote.told_by(OSError(text))
    assert SECRET not in told
    assert told[:8] == text[:8]


def test_forbidden_is_not_missing(
    s3: Server, url: str, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, both = "s3://ecg/forbidden/model", "Forbidden; the credentials do not allow it, or it is not there"
    remote.publish(model_dir, there)
    monkeypatch.setattr(s3, "forbids", lambda method, _: method == "HEAD")
    for ask in (lambda: load_model(there), lambda: Store.open(url)):
        with pytest.raises(DeriError, match=both) as error:
            ask()
        assert "no such file" not in one_line(error)
    for forbidden in ("HEAD", "GET"):  # of objects, of the list
        monkeypatch.setattr(s3, "forbids", lambda method, _, forbidden=forbidden: method == forbidden)
        with pytest.raises(DeriError, match="do not allow it"), remote.stage(Address(f"{there}2"), anew=False):
            pass
    (tmp_path / "x").mkdir()

    def refuse(self: Any, path: str, **_: Any) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(type(fsspec.filesystem("file")), "ls", refuse)
    with pytest.raises(DeriError, match="do not allow it"), remote.stage(Address(f"file://{tmp_path}/x"), anew=False):
        pass


def test_a_recording_is_told_of_where_the_rest_is_forbidden(
    s3: Server, ecg_real: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    header = next(ecg_real.rglob("*_hr.hea"), None) or next(ecg_real.rglob("*.hea"))
    for file in header.parent.glob(f"{header.stem}.*"):
        files().put_file(str(file), f"ecg/alone/{file.name}")
    monkeypatch.setattr(s3, "forbids", lambda _, path: not path.startswith("/ecg/alone/") or ".json" in path)
    assert run("info", f"s3://ecg/alone/{header.name}") == 0
    assert "leads" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("address", "cause"),
    [
        ("s3://no-such-bucket/x", "bucket does not exist"),
        ("s3://ecg/nothing", "no such file|no config.json|no_signals"),
        ("s3://", "names no bucket"),
        ("nonsense://ecg/x", "Protocol not known"),
    ],
)
@pytest.mark.parametrize("door", DOORS)
def test_errors_are_one_line(s3: Server, door: str, address: str, cause: str) -> None:
    with pytest.raises(DeriError, match=cause) as error:
        DOORS[door](address)
    assert address.rstrip("/") in one_line(error)


@pytest.fixture
def elsewhere(s3: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Other settings than those of the server."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    yield monkeypatch
    s3fs.S3FileSystem.clear_instance_cache()


def test_without_credentials_the_cure_is_told(
    elsewhere: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        elsewhere.delenv(name)
    elsewhere.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    for arguments in (
        ("info", "--verify", "s3://ecg/x"),
        ("retrieval", "--model", "s3://ecg/x", "--data", "s3://ecg/x", "--out", "x.json"),
        ("merge", "a", "b", "--out", "s3://ecg/x"),
    ):
        assert run(*arguments) == 2
        told = capsys.readouterr().err.strip()
        assert "Unable to locate credentials; set AWS_PROFILE" in told
        assert len(told.splitlines()) == 1


def test_nobody_listens(elsewhere: pytest.MonkeyPatch) -> None:
    elsewhere.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(DeriError, match=r"Could not connect .*; check the network and AWS_ENDPOINT_URL"):
        Store.open("s3://ecg/x")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(DeriError, match=r"package for s3:// is not installed: pip install '.*\[s3\]'"):
        Store.open("s3://ecg/x")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(DeriError, match=r"needs the package fsspec: pip install '.*\[formats\]'"):
        load_model("s3://ecg/x")


# --- writing ---------------------------------------------------------------------------------------------------------


def test_the_manifest_comes_last(s3: Server, local: Store, model_dir: Path) -> None:
    s3.log.clear()
    remote.publish(local.path, "s3://ecg/last/store")
    remote.publish(model_dir, "s3://ecg/last/model")
    names = [path.rpartition("/last/")[2] for _, path, _ in s3.asked("PUT") if not path.endswith(MARK)]
    written = {file.relative_to(local.path).as_posix() for file in local.path.rglob("*") if file.is_file()}
    assert set(names[: len(written)]) == {f"store/{name}" for name in written}
    assert names[len(written) - 1] == "store/store.json"
    assert names[-1] == "model/config.json"


def test_a_killed_upload_leaves_no_store_and_is_continued(
    s3: Server, local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = "s3://ecg/stores/killed"
    code = f"from deri.remote import publish; publish({str(local.path)!r}, {there!r})"
    child = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})

    def kill(method: str, path: str) -> None:
        if method == "PUT" and path.endswith("shard-00001.npy"):
            child.send_signal(signal.SIGKILL)
            child.wait()

    monkeypatch.setattr(s3, "before", kill)
    assert child.wait(60) == -signal.SIGKILL
    monkeypatch.undo()
    with pytest.raises(DeriError, match=r"killed/store.json: there is no such file"):
        Store.open(there)

    s3.log.clear()
    remote.publish(local.path, there)
    sent = [request.path.rpartition("/")[2] for request in s3.asked("PUT")]
    assert sent[-1] == "store.json"
    assert "shard-00000.npy" not in sent  # which is there
    assert not [name for name in files().find(there) if name.endswith(MARK)]
    np.testing.assert_array_equal(Store.open(there).signals(range(70)), local.signals(range(70)))


def test_parts_have_a_checksum_too(s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PART_BYTES", 5 * 2**20)
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "large.bin"
    file.write_bytes(np.random.default_rng(0).bytes(12 * 2**20))
    for changed, requests in ((False, 3), (False, 0), (True, 3)):
        if changed:
            file.write_bytes(file.read_bytes()[:-1] + b"x")
        s3.log.clear()
        remote.publish(file.parent, "s3://ecg/parts")
        assert len(s3.asked("PUT", "large.bin")) == requests
        assert files().cat_file("s3://ecg/parts/large.bin") == file.read_bytes()


@pytest.mark.parametrize("protocol", ["file", "memory"])
def test_elsewhere_a_file_appears_under_its_name_when_it_is_whole(
    protocol: str, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = f"{protocol}://{tmp_path}/out"
    kind = type(fsspec.filesystem(protocol))
    put = kind.put_file

    def cut(self: Any, source: str, target: str, **options: Any) -> None:
        put(self, source, target, **options)
        raise OSError("cable pulled")

    monkeypatch.setattr(kind, "put_file", cut)
    with pytest.raises(DeriError, match="cable pulled"):
        remote.publish(model_dir, there)
    monkeypatch.undo()
    assert not [name for name in fsspec.filesystem(protocol).find(f"{tmp_path}/out") if not name.endswith(".tmp")]
    remote.publish(model_dir, there)
    assert load_model(there).config == load_model(model_dir).config


def test_nothing_is_written_to_a_folder_called_like_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeriError, match=r"s3://ecg/x: write to a folder, then upload it"):
        write_text("s3://ecg/x", "text")
    with pytest.raises(DeriError, match="is refused"):
        write_text(f"s3://{SECRET}@ecg/x", "text")
    assert not (tmp_path / "s3:").exists()


def lying(url: str) -> set[str]:
    """The names of all objects below an address."""
    strip = type(files())._strip_protocol(url)
    return {name[len(strip) + 1 :] for name in files().find(url)}


def parts_of(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("name", ["plain", "odd [a*] ü #1 (2)"])
def test_files_of_an_upload_that_was_cut_off_do_not_join_another(
    s3: Server, local: Store, model_dir: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, there = tmp_path / "first", f"s3://ecg/joined/{name}"
    shutil.copytree(model_dir, first)
    for stray in ("calibration.json", "model/config.json", "sub [0]/tokenizer.json"):
        write_text(first / stray, "{}")
    put = Address.upload
    monkeypatch.setattr(
        Address, "upload", lambda self, file: put(self, file) if self.url != f"{there}/config.json" else fail()
    )

    def fail() -> None:
        raise DeriError("cable pulled")

    with pytest.raises(DeriError, match="cable pulled"):
        remote.publish(first, there)
    monkeypatch.undo()
    monkeypatch.setenv("DERI_CACHE", str(tmp_path / "cache"))
    assert lying(there) == parts_of(first) - {"config.json"} | {MARK}
    files().pipe_file(f"{there}/.hidden", b"of the user")
    with remote.saving(there) as made:
        shutil.copytree(model_dir, made)
    assert lying(there) == parts_of(model_dir) | {".hidden"}
    assert load_model(there).config == load_model(model_dir).config


def test_an_upload_leaves_alone_what_is_not_of_deri(
    s3: Server, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = "s3://ecg/of-a-user"
    files().pipe_file(f"{there}/thesis/notes.txt", b"mine")
    with pytest.raises(DeriError, match="of-a-user holds thesis/notes.txt already, which is not written over: name"):
        remote.publish(model_dir, there)
    assert run("prepare", "ptb-xl", model_dir, "--out", there) == 2  # before it looks at its source
    assert "holds thesis/notes.txt already" in capsys.readouterr().err
    assert lying(there) == {"thesis/notes.txt"}
    remote.publish(model_dir, f"{there}/model")  # beside it
    with pytest.raises(DeriError, match="holds config.json"), remote.saving(f"{there}/model"):
        pass


def test_a_file_that_lay_there_before_an_upload_was_cut_off_stays(
    s3: Server, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = "s3://ecg/with-notes"
    files().pipe_file(f"{there}/notes.txt", b"of the user")
    shutil.copytree(model_dir, tmp_path / "first")
    write_text(tmp_path / "first" / "notes.txt", "of the model")
    put = Address.upload

    def cut(self: Address, file: Path) -> None:
        if not self.url.endswith(MARK):
            raise DeriError("cable pulled")
        put(self, file)

    monkeypatch.setattr(Address, "upload", cut)
    with pytest.raises(DeriError, match="cable pulled"):
        remote.publish(tmp_path / "first", there)
    monkeypatch.undo()
    with pytest.raises(DeriError, match="holds notes.txt already"):
        remote.publish(model_dir, there)
    assert files().cat_file(f"{there}/notes.txt") == b"of the user"


def test_a_model_that_another_upload_made_is_not_written_over(s3: Server, model_dir: Path) -> None:
    there = "s3://ecg/of-another"
    remote.publish(model_dir, f"{there}/model")
    with pytest.raises(DeriError, match="holds config.json"), remote.saving(f"{there}/model"):
        pass


def test_what_came_while_it_was_made_is_not_written_over(s3: Server, model_dir: Path) -> None:
    saving = remote.saving(there := "s3://ecg/came-first")
    shutil.copytree(model_dir, saving.__enter__())
    remote.publish(model_dir, there)
    with pytest.raises(DeriError, match="holds config.json.*\n.* is kept in"):
        saving.__exit__(None, None, None)


def test_no_model_is_there_while_another_takes_its_place(
    s3: Server, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = "s3://ecg/replaced"
    remote.publish(model_dir, there)
    shutil.copytree(model_dir, tmp_path / "other")
    write_text(tmp_path / "other" / "README.md", "another")
    seen = []

    def look(method: str, path: str) -> None:
        if method == "PUT" and not path.endswith((MARK, "config.json")):
            seen.append(path)
            assert not files().exists(f"{there}/config.json")

    monkeypatch.setattr(s3, "before", look)
    remote.publish(tmp_path / "other", there)
    assert [path.rpartition("/")[2] for path in seen] == ["README.md"]
    assert lying(there) == parts_of(model_dir)


def test_of_two_uploads_to_one_address_the_first_gives_way(
    s3: Server, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, slow = "s3://ecg/raced", tmp_path / "slow"
    tiny.model(seed=7).save_pretrained(slow)
    write_text(slow / "a.txt", "of the first")

    def overtake(method: str, path: str) -> None:
        if method == "PUT" and path.endswith("README.md"):
            monkeypatch.setattr(s3, "before", lambda *_: None)
            remote.publish(model_dir, there)

    monkeypatch.setattr(s3, "before", overtake)
    with pytest.raises(DeriError, match="another upload to it has begun, which README.md may be mixed into") as error:
        remote.publish(slow, there)
    one_line(error)
    assert lying(there) == parts_of(model_dir)
    for name in ("config.json", "model.safetensors"):
        assert files().cat_file(f"{there}/{name}") == (model_dir / name).read_bytes()


def test_a_folder_without_files_is_no_upload(s3: Server, tmp_path: Path) -> None:
    with pytest.raises(DeriError, match="none holds no files to upload"):
        remote.publish(tmp_path / "none", "s3://ecg/none")


@pytest.mark.parametrize("name", [".hidden", "x.lock", ".hidden.json"])
def test_a_name_that_is_hidden_below_a_folder_is_one_to_write_to(s3: Server, model_dir: Path, name: str) -> None:
    with remote.saving(f"s3://ecg/hidden/{name}") as made:
        if name == ".hidden":
            shutil.copytree(model_dir, made)
        else:
            write_text(made, "result")
    assert (
        parts_of(model_dir) <= lying(f"s3://ecg/hidden/{name}") or files().cat_file(f"ecg/hidden/{name}") == b"result"
    )


def test_one_command_at_a_time_makes_what_is_for_an_address(
    s3: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Address("s3://ecg/alone/store")
    with remote.stage(target, anew=False) as made:
        write_text(made / "x", "of the first")
        assert run("prepare", "ptb-xl", "nowhere", "--out", target.url) == 2
        assert "is being written by another command" in one_line_of(capsys.readouterr().err)
        with remote.stage(target, anew=False, alone=False) as shared:  # by torchrun
            assert shared == made
        assert (made / "x").is_file()
    with remote.stage(target, anew=True) as made:
        assert not made.exists()


def one_line_of(text: str) -> str:
    assert len(text.strip().splitlines()) == 1
    return text


def test_a_cache_that_cannot_be_written_is_named(
    s3: Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(url)
    write_text(tmp_path / "file", "no folder")
    monkeypatch.setenv("DERI_CACHE", str(tmp_path / "file" / "cache"))
    told: list[str] = []
    asked: list[Callable[[], object]] = [
        lambda: Store.open(url),
        lambda: arrays_beside(store, "measurements/x", dict, SimpleNamespace(message=told.append)),  # type: ignore[arg-type]
        lambda: remote.stage(Address("s3://ecg/unwritable"), anew=False).__enter__(),
    ]
    for ask in asked:
        with pytest.raises(DeriError, match=r"cannot write .*file/cache.* DERI_CACHE names another folder") as error:
            ask()
        assert "read-only" not in one_line(error)
    assert not told


# --- the cache -------------------------------------------------------------------------------------------------------


def test_processes_that_want_the_same_files_fetch_them_once(
    s3: Server, model_dir: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Address("s3://ecg/models/shared")
    remote.publish(model_dir, there)
    s3.log.clear()
    with ThreadPoolExecutor(4) as threads:
        folders = set(threads.map(lambda _: remote.fetch_folder(there, (".json", ".safetensors")), range(4)))
    assert len(folders) == 1
    assert len(s3.asked("GET", "model.safetensors")) == 1


# --- commands --------------------------------------------------------------------------------------------------------


def test_commands_read_and_write_addresses(
    s3: Server, local: Store, model_dir: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, here = "s3://ecg/commands", tmp_path / "here"
    shutil.copytree(model_dir, here / "model")
    remote.publish(local.path, f"{out}/store")
    remote.publish(model_dir, f"{out}/model")
    for model, store, folder in ((f"{out}/model", f"{out}/store", out), (here / "model", local.path, here)):
        assert run("embed", "--model", model, store, "--out", f"{folder}/e.csv") == 0
    assert run("retrieval", "--model", f"{out}/model", "--data", f"{out}/store", "--out", f"{out}/r.json") == 0
    assert files().cat_file(f"{out}/e.csv").decode().replace(f"{out}/store", str(local.path)) == (
        here / "e.csv"
    ).read_text(encoding="utf-8")
    found = json.loads(files().cat_file(f"{out}/r.json"))
    assert (found["store"]["path"], found["model"]) == (f"{out}/store", f"{out}/model")
    assert not list((cache / "outgoing").glob("*/"))

    capsys.readouterr()
    assert run("info", "--json", f"{out}/store") == 0
    assert json.loads(capsys.readouterr().out)["records"] == 70
    assert run("info", "--verify", f"{out}/store") == 0
    assert "70 rows are what was written" in capsys.readouterr().out
    s3.log.clear()
    assert run("info", f"{out}/model") == 0
    assert "backbone" in capsys.readouterr().out
    assert not s3.asked("GET", ".safetensors")


def test_recordings_at_addresses(s3: Server, ecg_real: Path, model_dir: Path, tmp_path: Path) -> None:
    dicom = next(ecg_real.rglob("*.dcm"))
    files().put_file(str(dicom), "ecg/in/x.dcm")
    out = tmp_path / "e.csv"
    assert run("embed", "--model", model_dir, "s3://ecg/in/x.dcm", "s3://ecg/in/none.dcm", "--out", out) == 0
    assert out.read_text(encoding="utf-8").splitlines()[1].startswith("s3://ecg/in/x.dcm")


def test_a_store_is_prepared_at_an_address_and_kept_here_when_the_upload_fails(
    s3: Server, local: Store, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = local.path.parent / "source", "s3://ecg/kept/store"

    def fail(self: Address, file: Path) -> None:
        raise DeriError(f"{self}: line cut")

    monkeypatch.setattr(Address, "upload", fail)
    assert run("prepare", "ptb-xl", source, "--out", out) == 2
    told = capsys.readouterr().err
    assert "line cut" in told
    assert str(cache / "outgoing") in told.splitlines()[-1]
    monkeypatch.undo()
    monkeypatch.setenv("DERI_CACHE", str(cache))
    monkeypatch.setattr("deri.store.chunk.convert_chunk", None)  # which the second try does not need
    assert run("prepare", "ptb-xl", source, "--out", out) == 0
    for file in local.path.rglob("*"):
        if file.is_file():
            assert files().cat_file(f"{out}/{file.relative_to(local.path).as_posix()}") == file.read_bytes()
    assert not list((cache / "outgoing").glob("*/"))
    assert run("prepare", "ptb-xl", source, "--out", out) == 2
    assert "holds store.json, index.parquet" in capsys.readouterr().err


def test_an_index_keeps_stores_at_addresses_that_are_not_named_again() -> None:
    replaced: list[list[str]] = []
    keys = {"s3://ecg/x\tr1\tfile\t1", "/gone/store\tr1\tfile\t1", "/gone/file.dcm", "s3://ecg/x.dcm"}
    writer: Any = SimpleNamespace(known=dict.fromkeys(keys), replace=lambda gone, _: replaced.append(sorted(gone)))
    nothing: Any = None
    _Run(writer, nothing, None, nothing, nothing).prune()
    assert replaced == [["/gone/file.dcm", "/gone/store\tr1\tfile\t1"]]


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("prepare", "ptb-xl", "s3://ecg/data", "--out", "x"), "source s3://ecg/data: is read from the disk"),
        (("search", "--index", "s3://ecg/i", "text"), "index s3://ecg/i: is read from the disk"),
        (("prepare", "ptb-xl", "x", "--shard", "1/2", "--out", "s3://ecg/x"), "--shard"),
        (("merge", "a", "b", "--out", "s3://ecg"), "name a folder"),
        (("embed", "--model", "s3://ecg/x.onnx", "x", "--out", "x.csv"), "copy it here"),
        (("report", "calibrate", "--writer", "s3://ecg/w", "--data", "x"), "no store|copy it here"),
    ],
)
def test_what_needs_the_disk_says_so(
    s3: Server, arguments: tuple[str, ...], cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    told = capsys.readouterr().err
    assert any(part in told for part in cause.split("|"))
    assert "Traceback" not in told


def test_a_copy_of_what_tells_no_version_serves_one_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"name": "x", "type": "file", "size": 5}
    before = remote._version(told)
    assert remote._version(dict(told)) == before
    assert remote._version({**told, "ETag": "a"}) != remote._version({**told, "ETag": "b"})
    monkeypatch.setattr(remote, "OF_THIS_PROCESS", "another")
    assert remote._version(told) != before
    assert remote._version({**told, "mtime": 1.0}) == remote._version({"size": 5, "mtime": 1.0})
