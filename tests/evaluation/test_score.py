"""The calls of a notebook give what the commands write."""

from __future__ import annotations

from pathlib import Path

import deri
from deri.evaluation.features import Features
from deri.evaluation.options import EvalOptions
from deri.evaluation.probe import probe_task
from deri.evaluation.zero_shot import zero_shot_task
from support import tiny
from support.stores import simulated_store


def test_one_call_is_the_command(tmp_path: Path) -> None:
    store = simulated_store(tmp_path, 40, 5)
    model = tiny.model()
    options = EvalOptions(draws=0, seed=1)
    found = deri.zero_shot(model, store.path, "ptbxl-super", options)
    assert found == zero_shot_task(Features(model, store), "ptbxl-super", options, model_name=None)
    found = deri.probe(model, store, "ptbxl-super", options)
    assert found == probe_task(Features(model, store), "ptbxl-super", options, model_name=None)
    assert deri.probe(model, store, "ptbxl-super", options, measurements=True) != found


def test_the_objectives_are_public() -> None:
    assert {"info_nce", "PairObjective", "TERMS"} <= set(dir(deri.losses))
    assert set(deri.__all__) <= {*dir(deri)}
    assert all(getattr(deri, name) is not None for name in deri.__all__)
