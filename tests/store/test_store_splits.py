from __future__ import annotations

import hashlib
from fractions import Fraction

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deri.errors import DeriError
from deri.store.splits import assign_splits, unit_hash


def frame(subjects: list[str], splits: list[str | None] | None = None) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "record_id": [f"r{i}" for i in range(len(subjects))],
            "subject_id": subjects,
            "split": pd.Series(splits or [None] * len(subjects), dtype=object),
        }
    )


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.text(max_size=12))
def test_the_hash_is_the_leading_bits_of_blake2b(seed: int, key: str) -> None:
    bits = bin(int(hashlib.blake2b((str(seed) + ":" + key).encode("utf-8"), digest_size=8).hexdigest(), 16))[2:]
    expected = Fraction(int(bits.zfill(64)[:53], 2), 2**53)
    assert unit_hash(seed, key) == expected
    assert 0 <= unit_hash(seed, key) < 1


def test_known_hash_values_never_change() -> None:
    # Published stores are split by these; a change would move patients between train and test.
    assert unit_hash(0, "10000032") == pytest.approx(0.08844669232722457, abs=1e-12)
    assert unit_hash(42, "10000032") == pytest.approx(0.8044224965246024, abs=1e-12)


@settings(max_examples=50)
@given(st.lists(st.sampled_from([f"p{i}" for i in range(12)]), min_size=1, max_size=60), st.integers(0, 5))
def test_by_patient_nobody_is_in_two_splits(subjects: list[str], seed: int) -> None:
    splits = assign_splits(frame(subjects), rule="patient", seed=seed, val_fraction=0.3, test_fraction=0.3)
    pairs = set(zip(subjects, splits, strict=True))
    assert len(pairs) == len(set(subjects))


def test_fractions_are_kept_and_records_split_apart() -> None:
    n = 20_000
    subjects = [f"p{i % 100}" for i in range(n)]
    splits = assign_splits(frame(subjects), rule="record", seed=1, val_fraction=0.2, test_fraction=0.1)
    # Binomial standard deviation 0.003.
    assert splits.count("val") / n == pytest.approx(0.2, abs=0.012)
    assert splits.count("test") / n == pytest.approx(0.1, abs=0.012)
    assert len({split for subject, split in zip(subjects, splits, strict=True) if subject == "p3"}) == 3


def test_adding_recordings_moves_nobody_and_another_seed_does() -> None:
    subjects = [f"p{i}" for i in range(300)]
    options = {"rule": "patient", "val_fraction": 0.3, "test_fraction": 0.0}
    before = assign_splits(frame(subjects), seed=0, **options)
    after = assign_splits(frame([*subjects, "new", "p0"]), seed=0, **options)
    assert after[:300] == before
    assert after[301] == before[0]
    assert assign_splits(frame(subjects), seed=1, **options) != before


def test_a_recording_without_a_patient_stands_for_itself() -> None:
    splits = assign_splits(frame([""] * 400), rule="patient", seed=0, val_fraction=0.5, test_fraction=0.0)
    assert 100 < splits.count("val") < 300
    given_apart = frame(["", ""], ["train", "test"])
    assert assign_splits(given_apart, rule="patient", seed=0, val_fraction=0, test_fraction=0) == ["train", "test"]


def test_a_given_split_is_kept_and_holds_for_the_whole_patient() -> None:
    examples = frame(["a", "a", "b"], [None, "test", "val"])
    assert assign_splits(examples, rule="patient", seed=0, val_fraction=0, test_fraction=0) == ["test", "test", "val"]


def test_given_splits_that_share_a_patient_are_refused_by_patient_only() -> None:
    examples = frame(["a", "a", "b", "c", "c"], ["train", "test", "val", "val", "train"])
    with pytest.raises(DeriError, match=r"subject a, c\): .*--split record"):
        assign_splits(examples, rule="patient", seed=0, val_fraction=0, test_fraction=0)
    kept = assign_splits(examples, rule="record", seed=0, val_fraction=0, test_fraction=0)
    assert kept == ["train", "test", "val", "val", "train"]


def test_a_foreign_split_name_is_refused() -> None:
    with pytest.raises(DeriError, match="'dev'"):
        assign_splits(frame(["a"], ["dev"]), rule="record", seed=0, val_fraction=0, test_fraction=0)
