"""``deri download`` against a server on this machine: whole, resumed, damaged, killed connections, hostile lists."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deri.cli.main import app
from deri.datasets.download import DownloadSummary, download, source_of, sources
from deri.errors import DeriError
from support.told import Told


class Server(ThreadingHTTPServer):
    """Files by path, with faults: ``cut`` (bytes after which a connection breaks, once), ``damaged``, ``ranges``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cut: dict[str, int] = {}
        self.damaged: set[str] = set()
        self.ranges = True
        self.asked: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/project/1.0/"

    def put(self, **files: bytes) -> None:
        named = {name.replace("__", "/").replace("_dot_", "."): data for name, data in files.items()}
        self.files.update(named)
        lines = [f"{hashlib.sha256(data).hexdigest()} {name}" for name, data in sorted(named.items())]
        self.files["SHA256SUMS.txt"] = ("\n".join(lines) + "\n").encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        name = self.path.removeprefix("/project/1.0/")
        self.server.asked[name] += 1
        data = self.server.files.get(name)
        if data is None:
            self.send_error(404)
            return
        if name in self.server.damaged:
            data = data[:-1] + b"?"
        start = 0
        wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted and self.server.ranges:
            start = int(wanted[1])
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = self.server.cut.pop(name, None)
        body = data[start:end]
        self.server.sent[name] += len(body)
        self.wfile.write(body)
        if end is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    server.put(
        RECORDS=b"a\nb\n", records__a_dot_dat=bytes(range(256)) * 4000, records__b_dot_hea=b"b 12 500\n", empty=b""
    )
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(server: Server, out: Path, **options: int) -> DownloadSummary:
    return download(source_of("ptb-xl", server.url), out, **options)


def whole(server: Server, out: Path) -> None:
    files = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    files.pop(".verified")
    assert files == {name: data for name, data in server.files.items() if name != "SHA256SUMS.txt"}


def test_everything_is_fetched_once_and_kept(server: Server, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    source = source_of("ptb-xl", server.url)
    summary = download(source, tmp_path / "x", progress=Told(lambda done, total: calls.append((done, total))))
    assert (summary.fetched, summary.kept, summary.total) == (4, 0, 4)
    assert calls == [(i, 4) for i in range(5)]
    whole(server, tmp_path / "x")
    again = fetch(server, tmp_path / "x")
    assert (again.fetched, again.kept) == (0, 4)
    assert all(count == 1 for name, count in server.asked.items() if name != "SHA256SUMS.txt")


def test_a_changed_or_lost_file_is_fetched_again(server: Server, tmp_path: Path) -> None:
    fetch(server, tmp_path)
    (tmp_path / "records/b.hea").write_bytes(b"shorter")
    (tmp_path / "RECORDS").unlink()
    with open(tmp_path / ".verified", "a") as log:
        log.write("0123 12")  # a line that a kill cut off
    assert fetch(server, tmp_path).fetched == 2
    whole(server, tmp_path)
    assert fetch(server, tmp_path).fetched == 0


def test_a_file_whose_note_is_damaged_is_hashed_again(server: Server, tmp_path: Path) -> None:
    fetch(server, tmp_path)
    notes = tmp_path / ".verified"
    notes.write_bytes(notes.read_bytes().replace(b"RECORDS", b"REC\xb8RDS"))
    fetch(server, tmp_path)
    whole(server, tmp_path)
    assert server.asked["RECORDS"] == 1  # hashed, not fetched


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_is_continued(ranges: bool, server: Server, tmp_path: Path) -> None:
    server.ranges = ranges
    server.cut["records/a.dat"] = 700_000
    fetch(server, tmp_path, connections=1)
    whole(server, tmp_path)
    size = len(server.files["records/a.dat"])
    assert server.asked["records/a.dat"] == 2
    assert server.sent["records/a.dat"] == (size if ranges else size + 700_000)


def test_a_killed_run_is_continued_where_it_was(server: Server, tmp_path: Path) -> None:
    data = server.files["records/a.dat"]
    (tmp_path / "records").mkdir()
    (tmp_path / "records/a.dat.part").write_bytes(data[:1_000_000])
    (tmp_path / "RECORDS").write_bytes(server.files["RECORDS"])  # whole, but not yet listed as verified
    fetch(server, tmp_path)
    whole(server, tmp_path)
    assert server.sent["records/a.dat"] == len(data) - 1_000_000
    assert server.asked["RECORDS"] == 0


@pytest.mark.parametrize("junk", [b"x" * 1000, b"y" * 2_000_000])
def test_a_part_of_something_else_is_not_believed(junk: bytes, server: Server, tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records/a.dat.part").write_bytes(junk)
    fetch(server, tmp_path)
    whole(server, tmp_path)


def test_a_wrong_checksum_is_never_given_the_name(server: Server, tmp_path: Path) -> None:
    server.damaged.add("records/b.hea")
    with pytest.raises(DeriError, match=r"records/b\.hea: its SHA-256 is not that of the list, 3 times"):
        fetch(server, tmp_path)
    assert server.asked["records/b.hea"] == 3
    assert not (tmp_path / "records/b.hea").exists()
    server.damaged.clear()
    fetch(server, tmp_path)
    whole(server, tmp_path)


def test_only_the_part_of_a_larger_project(server: Server, tmp_path: Path) -> None:
    server.put(LICENSE=b"", training__cpsc_2018__g1__A0001_dot_hea=b"A0001", training__ptb__g1__S1_dot_hea=b"S1")
    download(source_of("cpsc2018", server.url), tmp_path)
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.hea")} == {"g1/A0001.hea"}


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "c:/evil", "a\\evil"])
def test_a_list_cannot_name_files_outside(path: str, server: Server, tmp_path: Path) -> None:
    server.files["SHA256SUMS.txt"] = f"{'0' * 64} {path}\n".encode()
    with pytest.raises(DeriError, match="names a file outside"):
        fetch(server, tmp_path / "x")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_clear_errors(server: Server, tmp_path: Path) -> None:
    url = server.url
    del server.files["records/b.hea"]
    with pytest.raises(DeriError, match=r"records/b\.hea: the server answers 404"):
        fetch(server, tmp_path)
    with pytest.raises(DeriError, match="answers 404.*does the project need an account"):
        download(source_of("csn", f"{url}nowhere"), tmp_path)
    for answer in (b"<html>log in</html>\n", b"\x1f\x8b\xb8 a gzip file"):
        server.files["SHA256SUMS.txt"] = answer
        with pytest.raises(DeriError, match="is no list of checksums"):
            fetch(server, tmp_path)
    with pytest.raises(DeriError, match="no connection"):
        download(source_of("csn", "http://127.0.0.1:9/"), tmp_path)
    with pytest.raises(DeriError, match="cannot be downloaded; there are mimic-iv-ecg, ptb-xl"):
        source_of("sph")
    with pytest.raises(DeriError, match="expected an http or https address"):
        source_of("csn", "ftp://x")


def test_command_states_the_terms_first(server: Server, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["download", "csn", "--to", str(tmp_path / "x"), "--url", server.url])
    assert done.exit_code == 0, done.output
    assert "4 files in" in done.output
    assert "checksums verified" in done.output
    for name, source in sources().items():
        terms = source.terms()
        assert ("ODbL" if name == "mimic-iv-ecg" else "CC BY 4.0") in terms
        assert "no account or credentials" in terms
    assert "licence: CC BY 4.0" in done.output
    assert done.output.index("licence") < done.output.index("4 files")
