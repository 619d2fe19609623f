from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deri.errors import DeriError
from deri.store.npy import NpyAppender, npy_bytes, read_arrays, write_arrays


@settings(max_examples=40)
@given(
    array=hnp.arrays(
        st.sampled_from([np.dtype("<i2"), np.dtype("<f4"), np.dtype("<i8"), np.dtype("<f2")]),
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=7),
    ),
    cut=st.integers(0, 7),
)
def test_rows_appended_in_two_goes_load_as_one_array(tmp_path_factory, array, cut) -> None:
    path = tmp_path_factory.mktemp("npy") / "x.npy"
    cut = min(cut, len(array))
    with NpyAppender(path, array.shape[1:], array.dtype) as file:
        file.append(array[:cut])
        file.append(array[:1])  # dropped by the second writer, as what a killed one wrote past its last mark is
    with NpyAppender(path, array.shape[1:], array.dtype, rows=cut) as file:
        file.append(array[cut:])
    loaded = np.load(path, allow_pickle=False)
    assert loaded.dtype == array.dtype
    np.testing.assert_array_equal(loaded, array)
    assert path.stat().st_size == npy_bytes(array.shape, array.dtype)


def test_a_memory_map_sees_an_aligned_array(tmp_path: Path) -> None:
    with NpyAppender(tmp_path / "x.npy", (12, 5000), "<i2") as file:
        file.append(np.ones((2, 12, 5000), np.int16))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert mapped.offset == 128
    assert mapped.flags.aligned


def test_rows_of_another_shape_or_type_are_refused(tmp_path: Path) -> None:
    with NpyAppender(tmp_path / "x.npy", (3,), "<i2") as file:
        with pytest.raises(ValueError, match="do not fit"):
            file.append(np.zeros((1, 4), np.int16))
        with pytest.raises(ValueError, match="do not fit"):
            file.append(np.zeros((1, 3), np.int32))


def test_continuing_a_file_that_lost_its_rows_is_refused(tmp_path: Path) -> None:
    with NpyAppender(tmp_path / "x.npy", (3,), "<i2") as file:
        file.append(np.zeros((2, 3), np.int16))
    with pytest.raises(ValueError, match="fewer than 3 rows"):
        NpyAppender(tmp_path / "x.npy", (3,), "<i2", rows=3)


def test_every_flipped_bit_of_kept_arrays_is_named_or_changes_nothing(tmp_path: Path) -> None:
    path, arrays = tmp_path / "x.npz", {"rows": np.arange(5), "scores": np.linspace(0, 1, 6, dtype=np.float32)}
    write_arrays(path, **arrays)
    whole, told = path.read_bytes(), []
    for place, bit in itertools.product(range(len(whole)), range(8)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        try:
            found = read_arrays(path, "make it again")
        except DeriError as error:
            told.append(str(error))
        else:
            np.testing.assert_equal(found, arrays)
    assert len(told) > 8 * sum(array.nbytes for array in arrays.values())
    # Where a header shrinks an array of many bytes, NumPy ends before the place where a zip file compares checksums.
    write_arrays(path, scores=np.zeros((300, 50, 3)))
    whole = path.read_bytes()
    header = whole.rindex(b"\x93NUMPY", 0, whole.index(b"(300, 50, 3)"))
    for place, bit in itertools.product(range(header, header + 128), range(8)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        with pytest.raises(DeriError, match="is damaged"):
            read_arrays(path, "make it again")
    assert all(text.startswith(f"{path} is damaged (") and text.endswith("): make it again") for text in told)
