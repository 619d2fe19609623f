"""``deri serve`` as a process: it starts, answers, and ends as other commands do; wrong options are told."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from deri.cli.main import main
from support import tiny


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["serve", *map(str, arguments)])
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_wrong_options_are_told_before_the_model_is_loaded(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "--token-file" in refused(capsys, "--host", "0.0.0.0", "--model", tmp_path / "none")
    assert "cannot be read" in refused(capsys, "--token-file", tmp_path / "none")
    assert "is no index" in refused(capsys, "--index", tmp_path)


@pytest.mark.slow
def test_answers_until_it_is_told_to_end(tmp_path: Path) -> None:
    tiny.model(pooling="mean").save_pretrained(tmp_path / "model")
    command = [sys.executable, "-m", "deri", "serve", "--model", str(tmp_path / "model"), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        url = next(found[0] for line in process.stderr if (found := re.search(r"http://\S+/", line)))
        with urllib.request.urlopen(f"{url}healthz", timeout=60) as answer:
            assert json.loads(answer.read())["model"] == "model"
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert json.loads(rest.splitlines()[0])["route"] == "/healthz"
    assert rest.splitlines()[-1].startswith("deri: interrupted")
