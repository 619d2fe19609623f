from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deri.errors import DeriError
from deri.reports.statements import split_statements
from deri.store import statements
from support.stores import simulated_store


def test_statements_of_a_store_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = simulated_store(tmp_path, 12, seed=4)
    expected = split_statements(store.reports)
    assert expected.texts
    for attempt in range(2):
        found = statements.store_statements(store)
        assert found.texts == expected.texts
        for name in ("bits", "report_bits", "starts", "ids"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=f"{name} {attempt}")
        monkeypatch.setattr(statements, "split_statements", None)
    (file,) = (store.path / "statements").glob("*.npz")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DeriError, match="is damaged .*delete it"):
        statements.store_statements(store)
    monkeypatch.undo()
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with np.load(file) as whole:
        arrays = {name: whole[name] for name in whole.files if name != "deri-names"}
    np.savez(file, **arrays)  # type: ignore[arg-type] # as deri wrote it before it checked the names
    assert statements.store_statements(store).texts == expected.texts
    assert file.stat().st_size == len(content)
    monkeypatch.setattr(statements, "_rules", lambda: "other rules")
    assert statements.store_statements(store).texts == expected.texts
    assert len(list((store.path / "statements").glob("*.npz"))) == 2
