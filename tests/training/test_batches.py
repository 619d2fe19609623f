from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deri.errors import DeriError
from deri.recipes import Train, load_recipe
from deri.reports.statements import split_statements
from deri.store import Store, TextFeatures
from deri.training.batches import BatchPlan, PairReader, SingleStatements
from deri.training.distributed import Replica
from support import tiny


@settings(max_examples=40)
@given(n=st.integers(12, 200), batch=st.integers(6, 16), world=st.integers(1, 3), seed=st.integers(0, 99))
def test_an_epoch_visits_every_row_at_most_once_whatever_the_number_of_processes(
    n: int, batch: int, world: int, seed: int
) -> None:
    rows = np.arange(n) * 10
    config = Train(batch_size=batch, seed=seed)
    plan, alone = BatchPlan.make([rows], config, world), BatchPlan.make([rows], config)
    seen = [plan.step_rows(step) for step in range(plan.steps_per_epoch)]
    np.testing.assert_array_equal(seen, [alone.step_rows(step) for step in range(alone.steps_per_epoch)])
    every = np.concatenate(seen)
    assert len(every) == len(set(every.tolist())) == len(seen) * plan.batch_size
    assert set(every.tolist()) <= set(rows.tolist())
    assert n - len(every) < plan.batch_size


@given(n=st.integers(0, 70), world=st.integers(1, 9))
def test_processes_share_a_batch_without_overlap_or_gap(n: int, world: int) -> None:
    replicas = [Replica(rank, world, torch.device("cpu")) for rank in range(world)]
    parts = [np.arange(n)[replica.part(n)] for replica in replicas]
    assert np.concatenate(parts).tolist() == list(range(n))
    assert replicas[0].sizes(n) == [len(part) for part in parts]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_epochs_differ_unless_the_released_flaw_is_asked_for() -> None:
    rows = np.arange(64)
    epochs = BatchPlan.make([rows], Train(batch_size=64))
    assert epochs.step_rows(0).tolist() != epochs.step_rows(1).tolist()
    once = BatchPlan.make([rows], Train(batch_size=64, shuffle="once"))
    assert once.step_rows(0).tolist() == once.step_rows(1).tolist()


def test_order_does_not_depend_on_what_was_asked_before() -> None:
    rows = np.arange(40)
    make = lambda: BatchPlan.make([rows], Train(batch_size=8))  # noqa: E731
    straight, jump = make(), make()
    for step in range(12):
        straight.step_rows(step)
    np.testing.assert_array_equal(straight.step_rows(13), jump.step_rows(13))


@settings(max_examples=40)
@given(
    sizes=st.tuples(st.integers(4, 90), st.integers(4, 90)),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 9),
)
def test_a_mixture_takes_its_share_of_each_store_in_every_batch_and_all_rows_equally_often(
    sizes: tuple[int, int], share: float, seed: int
) -> None:
    rows = [np.arange(sizes[0]), 1000 + np.arange(sizes[1])]
    config = Train(batch_size=8, seed=seed, mix=(share, 1 - share))
    plan = BatchPlan.make(rows, config)
    size = min(8, sum(sizes))
    counts = plan.counts
    assert sum(counts) == size
    assert min(counts) >= 1
    assert abs(counts[0] - share * size) <= 1
    drawn = [plan.step_rows(step) for step in range(60)]
    assert all((part < 1000).sum() == counts[0] for part in drawn)
    every = np.concatenate(drawn)
    for own in rows:
        often = (every[:, None] == own).sum(axis=0)
        assert often.max() - often.min() <= 1


def test_an_epoch_of_a_mixture_is_a_pass_through_the_first_store() -> None:
    plan = BatchPlan.make([np.arange(20), np.arange(100)], Train(batch_size=8, mix=(1, 1)))
    assert plan.steps_per_epoch == 5


def test_shares_for_other_stores_than_there_are() -> None:
    with pytest.raises(DeriError, match="2 shares for 1 stores"):
        BatchPlan.make([np.arange(8)], Train(mix=(0.5, 0.5)))


def test_too_few_rows() -> None:
    with pytest.raises(DeriError, match="at least 4"):
        BatchPlan.make([np.arange(3)], Train(), 2)
    with pytest.raises(DeriError, match=r"train.batch_size=8 is of all processes.*2 of them.*accumulate=3 need 12"):
        BatchPlan.make([np.arange(30)], Train(batch_size=8, accumulate=3), 2)


def test_pairs_that_show_one_statement_have_its_features_and_findings(mimic_store: Path) -> None:
    store, model = Store.open(mimic_store), tiny.model()
    statements = split_statements(store.reports)
    kind = {"dtype": "float32"}
    cache = TextFeatures.build(store, model.text_encoder, **kind)
    single = TextFeatures.build(store, model.text_encoder, texts=statements.texts, kind="statements", **kind)
    pairs = PairReader(store, model, cache, SingleStatements(statements, single, 0.5))
    rows = pairs.rows("train")[:12]
    draws = np.random.default_rng(0).random((12, 2))
    batch = pairs.batch(rows, draws)
    ids = store.index["report_id"].to_numpy()[rows]
    assert batch.text is not None
    assert batch.findings is not None
    assert 0 < (draws[:, 0] < 0.5).sum() < 12
    for i, report in enumerate(ids):
        own = statements.ids[statements.starts[report] : statements.starts[report + 1]]
        text, bits = store.reports[report], statements.report_bits[report]
        if draws[i, 0] < 0.5 and len(own):
            chosen = own[int(draws[i, 1] * len(own))]
            text, bits = statements.texts[chosen], statements.bits[chosen]
        tokens, pooled = model.text_encoder.encode([text])[0]
        np.testing.assert_allclose(batch.text.pooled[i].numpy(), pooled, atol=1e-5)
        real = batch.text.mask[i]
        np.testing.assert_allclose(batch.text.tokens[i][real].numpy(), tokens, atol=1e-5)
        assert not batch.text.tokens[i][~real].any()
        assert batch.findings[i].tolist() == [[bits], [statements.report_bits[report]]]
    whole = pairs.batch(rows)
    assert whole.findings is not None
    assert torch.equal(whole.findings[:, 0], whole.findings[:, 1])
    np.testing.assert_array_equal(whole.text.pooled.numpy(), cache.pooled(ids))


def test_statements_need_the_rule_that_lets_ecgs_share_them() -> None:
    with pytest.raises(DeriError, match=r"objective\.shared=findings"):
        load_recipe("deri", ["train.statements=0.5"])
    with pytest.raises(DeriError, match=r"objective\.duplicates=ignore"):
        load_recipe("deri-reference", ["objective.shared=findings"])
    with pytest.raises(DeriError, match="frozen"):
        load_recipe("deri", ["train.statements=0.5", "objective.shared=findings", "model.text.train_layers=1"])
