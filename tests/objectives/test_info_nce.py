from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deri.models import Output
from deri.objectives import PairBatch, PairObjective, info_nce
from deri.objectives.pairs import entailed
from deri.recipes import Objective


def pair_terms(
    out: Output, config: Objective | None = None, ids: torch.Tensor | None = None, **more: torch.Tensor
) -> dict[str, torch.Tensor]:
    return PairObjective(config or Objective(duplicates="negative")).terms(out, PairBatch(report_ids=ids, **more))


def restated(a: np.ndarray, b: np.ndarray, temperature: float, groups: list[int] | None = None) -> float:
    """Symmetric InfoNCE with loops, in float64."""
    a = a / np.linalg.norm(a, axis=1, keepdims=True)
    b = b / np.linalg.norm(b, axis=1, keepdims=True)
    total = 0.0
    for x, y in ((a, b), (b, a)):
        for i in range(len(x)):
            others = [j for j in range(len(x)) if j == i or groups is None or groups[i] < 0 or groups[i] != groups[j]]
            logits = np.array([x[i] @ y[j] / temperature for j in others])
            log_sum = np.log(np.exp(logits - logits.max()).sum()) + logits.max()
            total += (log_sum - x[i] @ y[i] / temperature) / len(x)
    return total


@settings(max_examples=30)
@given(
    n=st.integers(1, 9),
    d=st.integers(2, 5),
    temperature=st.sampled_from([0.07, 0.5, 1.0]),
    seed=st.integers(0, 1000),
    grouped=st.booleans(),
)
def test_equals_the_restatement(n: int, d: int, temperature: float, seed: int, grouped: bool) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n, d))
    groups = rng.integers(-1, 3, n) if grouped else None
    actual = info_nce(torch.tensor(a), torch.tensor(b), temperature, None if groups is None else torch.tensor(groups))
    expected = restated(a, b, temperature, None if groups is None else groups.tolist())
    assert float(actual) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_one_pair_has_no_negatives() -> None:
    assert float(info_nce(torch.ones(1, 3), torch.ones(1, 3))) == 0


def output(seed: int = 0, n: int = 5) -> Output:
    rng = np.random.default_rng(seed)
    draw = lambda d: torch.tensor(rng.normal(size=(n, d)), dtype=torch.float32, requires_grad=True)  # noqa: E731
    return Output(
        ecg_aligned=draw(4), text_aligned=draw(4), ecg_views=(draw(4), draw(4)), ecg_original=draw(4),
        text_original=draw(6), text_decoded=draw(6), ecg_decoded=draw(4), ecg_mixed=draw(4), text_mixed=draw(4),
    )  # fmt: skip


PARTNERS = {
    "alignment": ("ecg_aligned", "text_aligned"),
    "mixed_alignment": ("ecg_mixed", "text_mixed"),
    "ecg_reconstruction": ("ecg_original", "ecg_decoded"),
    "text_reconstruction": ("text_original", "text_decoded"),
}


def test_each_of_the_five_terms_equals_the_restatement() -> None:
    out = output()
    ids = torch.tensor([3, 1, 3, 0, 1])
    terms = pair_terms(out, Objective(duplicates="ignore"), ids)
    assert set(terms) == {*PARTNERS, "view_contrast"}
    arrays = lambda *names: [getattr(out, n).detach().double().numpy() for n in names]  # noqa: E731
    for name, partners in PARTNERS.items():
        assert float(terms[name]) == pytest.approx(restated(*arrays(*partners), 0.07, ids.tolist()), rel=1e-4), name
    views = [view.detach().double().numpy() for view in out.ecg_views]
    # Different ECGs with one report are still different ECGs: views know no groups.
    assert float(terms["view_contrast"]) == pytest.approx(restated(*views, 0.07), rel=1e-4)
    released = pair_terms(out, Objective(duplicates="negative"), ids)
    for name, partners in PARTNERS.items():
        assert float(released[name]) == pytest.approx(restated(*arrays(*partners), 0.07), rel=1e-4), name


def test_weight_zero_is_logged_and_not_trained() -> None:
    out = output()
    losses, logged = PairObjective(Objective(text_reconstruction=0.0, alignment=2.0))(
        out, PairBatch(report_ids=torch.arange(5))
    )
    assert "text_reconstruction" not in losses
    assert "text_reconstruction" in logged
    assert float(losses["alignment"]) == pytest.approx(2 * float(logged["alignment"]))
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert out.text_decoded is not None
    assert out.text_decoded.grad is None
    assert out.ecg_aligned.grad is not None


def test_merl_has_two_terms() -> None:
    out = output()
    merl = Output(out.ecg_aligned, out.text_aligned, out.ecg_views)
    assert set(pair_terms(merl)) == {"alignment", "view_contrast"}


def restated_pairs(a: np.ndarray, b: np.ndarray, temperature: float, same: np.ndarray, positive: bool) -> float:
    """Both directions with loops; ``same[i, j]``: row i of ``a`` goes with row j of ``b``, too."""
    a = a / np.linalg.norm(a, axis=1, keepdims=True)
    b = b / np.linalg.norm(b, axis=1, keepdims=True)
    n, total = len(a), 0.0
    for x, y, go in ((a, b, same), (b, a, same.T)):
        for i in range(n):
            own = [j for j in range(n) if j == i or (positive and go[i, j])]
            counted = [j for j in range(n) if j == i or positive or not go[i, j]]
            log_sum = np.log(sum(np.exp(x[i] @ y[j] / temperature) for j in counted))
            total += float(np.mean([log_sum - x[i] @ y[j] / temperature for j in own])) / n
    return total


@settings(max_examples=30)
@given(n=st.integers(2, 7), seed=st.integers(0, 1000), positive=st.booleans())
def test_pairs_that_go_together_one_way(n: int, seed: int, positive: bool) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n, 3))
    same = rng.random((n, n)) < 0.3
    rule = "positive" if positive else "ignore"
    actual = info_nce(torch.tensor(a), torch.tensor(b), 0.5, torch.tensor(same), same_group=rule)
    assert float(actual) == pytest.approx(restated_pairs(a, b, 0.5, same, positive), rel=1e-4)


SR, AFIB, LVH = 1, 2, 4


def test_a_text_that_names_nothing_new_is_shared() -> None:
    # text shown, whole report
    pairs = [(SR, SR | LVH), (SR | LVH, SR | LVH), (AFIB, AFIB), (0, 0), (LVH, AFIB | LVH)]
    assert entailed(torch.tensor(pairs)[..., None]).int().tolist() == [
        [1, 1, 0, 0, 1],
        [1, 1, 0, 0, 1],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 1, 0, 1],
    ]


def test_the_text_of_a_class_goes_with_the_pairs_of_that_class_or_that_name_its_findings() -> None:
    # [findings, classes] of the text shown, and of the whole pair
    rows = [
        ([AFIB, 1], [0, 1]),  # a class, whose report names nothing
        ([0, 2], [LVH, 3]),  # a class whose text names no finding
        ([AFIB, 0], [AFIB, 0]),  # a report, no classes
        ([0, 4], [0, 4]),
    ]
    assert entailed(torch.tensor(rows)).int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 0, 1, 0],
        [0, 0, 0, 1],
    ]


@pytest.mark.parametrize("rule", ["ignore", "positive"])
def test_terms_with_findings_turn_the_pairs_with_the_text(rule: str) -> None:
    out = output()
    findings = torch.tensor([(SR, SR | LVH), (SR | LVH, SR | LVH), (AFIB, AFIB), (0, 0), (LVH, AFIB | LVH)])[..., None]
    terms = pair_terms(out, Objective(duplicates=rule, shared="findings"), torch.arange(5), findings=findings)
    same = entailed(findings).numpy()
    for name, partners in PARTNERS.items():
        a, b = (getattr(out, n).detach().double().numpy() for n in partners)
        expected = restated_pairs(a, b, 0.07, same.T if name == "text_reconstruction" else same, rule == "positive")
        assert float(terms[name]) == pytest.approx(expected, rel=1e-4), name
    views = [view.detach().double().numpy() for view in out.ecg_views]
    assert float(terms["view_contrast"]) == pytest.approx(restated(*views, 0.07), rel=1e-4)
    released = pair_terms(out, Objective(duplicates="negative", shared="findings"), torch.arange(5), findings=findings)
    plain = pair_terms(out, Objective(duplicates="negative"))
    assert {k: float(v) for k, v in released.items()} == {k: float(v) for k, v in plain.items()}


def test_equal_reports_that_name_no_finding_are_shared() -> None:
    out = output()
    silent = torch.zeros(5, 2, 1, dtype=torch.int64)
    ids = torch.tensor([3, 1, 3, 0, 1])
    config = Objective(shared="findings")
    terms, by_text = pair_terms(out, config, ids, findings=silent), pair_terms(out, Objective(), ids)
    assert {k: float(v) for k, v in terms.items()} == pytest.approx({k: float(v) for k, v in by_text.items()}, rel=1e-6)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@given(n=st.integers(2, 6), seed=st.integers(0, 1000))
def test_equal_reports_as_positives_share_the_target(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, 4)), rng.normal(size=(n, 4))
    groups = rng.integers(-1, 2, n)
    total = 0.0
    for x, y in ((unit(a), unit(b)), (unit(b), unit(a))):
        for i in range(n):
            logits = y @ x[i] / 0.5
            log_p = logits - np.log(np.exp(logits).sum())
            friends = [j for j in range(n) if j == i or groups[j] == groups[i] >= 0]
            total -= np.mean(log_p[friends]) / n
    actual = info_nce(torch.tensor(a), torch.tensor(b), 0.5, torch.tensor(groups), same_group="positive")
    assert float(actual) == pytest.approx(total, rel=1e-4)
