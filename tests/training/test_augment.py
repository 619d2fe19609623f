from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from deri.errors import DeriError
from deri.recipes import load_recipe
from deri.recipes.schema import Augment
from deri.training.augment import augment
from deri.training.batches import Batch
from deri.training.distributed import Draws, Replica

FS = 250.0
N = 1000
ALL = Augment(lead_dropout=0.5, gain=0.3, wander=0.5, noise=0.05, mains=0.1, filters=0.5)


def batch(b: int = 8, *, missing: int | None = None, valid: int | None = None) -> Batch:
    rng = np.random.default_rng(0)
    ecg = rng.normal(size=(b, 12, N)).astype(np.float32)
    if missing is not None:
        ecg[:, missing] = 0
    if valid is not None:
        ecg[:, :, valid:] = 0
    ecg -= ecg.mean(axis=2, keepdims=True)
    lengths = None if valid is None else torch.full((b,), valid)
    return Batch(torch.from_numpy(ecg), torch.arange(b), lengths)


def run(what: Batch, config: Augment, *, seed: int = 0, rank: int = 0, world: int = 1) -> torch.Tensor:
    generator, device, total = torch.Generator().manual_seed(seed), torch.device("cpu"), len(what.ecg) * world
    return augment(what, config, FS, Draws(Replica(rank, world, device).part(total), total, generator, device)).ecg


def test_two_processes_change_what_one_with_both_batches_changes() -> None:
    whole = batch(8)
    halves = [Batch(whole.ecg[i : i + 4], whole.report_ids[i : i + 4]) for i in (0, 4)]
    together = run(whole, ALL)
    apart = torch.cat([run(half, ALL, rank=rank, world=2) for rank, half in enumerate(halves)])
    assert torch.equal(together, apart)


def test_same_generator_same_changes_and_another_other() -> None:
    assert torch.equal(run(batch(), ALL), run(batch(), ALL))
    assert not torch.equal(run(batch(), ALL), run(batch(), ALL, seed=1))


def test_missing_leads_stay_zero_and_every_lead_is_centred() -> None:
    changed = run(batch(missing=3), ALL)
    assert not changed[:, 3].any()
    assert float(changed.mean(dim=2).abs().max()) < 1e-5
    assert torch.isfinite(changed).all()


def test_padding_stays_as_it_is() -> None:
    before = batch(valid=700)
    after = run(before, Augment(gain=0.3, wander=0.5, noise=0.5, mains=0.1))
    assert torch.equal(after[:, :, 700:], before.ecg[:, :, 700:])
    assert float((after - before.ecg)[:, :, :700].std()) > 0.05
    assert float(after[:, :, :700].mean(dim=2).abs().max()) < 1e-5


def test_nothing_passes_the_clip_of_the_normalisation() -> None:
    before = batch(64)
    before.ecg *= 10 / before.ecg.abs().max()
    before.ecg -= before.ecg.mean(dim=2, keepdim=True)
    after = run(before, Augment(gain=0.5))
    assert float(after.abs().max()) == 10.0


def test_lost_leads_are_a_non_empty_random_set() -> None:
    before = batch(400, missing=0)
    after = run(before, Augment(lead_dropout=0.5))
    kept = (after != 0).any(dim=2)
    assert not kept[:, 0].any()
    counts = kept.sum(dim=1).numpy()
    assert counts.min() >= 1
    intact = np.mean(counts == 11)
    assert 0.4 < intact < 0.7  # half untouched, and a tenth of the others keep all eleven by the draw
    assert len(np.unique(counts)) == 11
    untouched = torch.from_numpy(counts == 11)
    assert torch.allclose(after[untouched], before.ecg[untouched], atol=1e-6)


def test_sizes_are_what_the_recipe_says() -> None:
    before = batch(64)
    gain = (run(before, Augment(gain=0.3)).std(dim=2) / before.ecg.std(dim=2)).numpy()
    assert 0.69 < gain.min() < 0.8
    assert 1.2 < gain.max() < 1.31
    assert np.ptp(gain, axis=1).max() < 1e-3  # one gain for all leads of a recording: amplitudes between leads stay
    wander = run(before, Augment(wander=0.5)) - before.ecg
    spectrum = torch.fft.rfft(wander, dim=2).abs().pow(2).mean(dim=(0, 1))
    hertz = torch.fft.rfftfreq(N, 1 / FS)
    assert float(spectrum[hertz <= 1.0].sum() / spectrum.sum()) > 0.95
    mains = run(before, Augment(mains=0.1)) - before.ecg
    spectrum = torch.fft.rfft(mains, dim=2).abs().pow(2).mean(dim=(0, 1))
    near = ((hertz - 50).abs() < 1) | ((hertz - 60).abs() < 1)
    assert float(spectrum[near].sum() / spectrum.sum()) > 0.95
    assert float(mains.abs().max()) <= 0.1 + 1e-5


def test_filters_take_away_fast_and_slow_parts_only() -> None:
    time = torch.arange(N) / FS
    slow, middle = (torch.sin(2 * torch.pi * hertz * time) for hertz in (0.25, 5.0))
    ecg = torch.stack([slow, middle]).repeat(32, 6, 1)[:, :12] * 1.0
    after = run(Batch(ecg - ecg.mean(dim=2, keepdim=True), torch.arange(32)), Augment(filters=1.0))
    ratio = after.std(dim=2) / ecg.std(dim=2)
    assert float(ratio[:, 1].min()) > 0.9
    assert float(ratio[:, 0].min()) < 0.6


def test_min_max_recipes_refuse_millivolt_changes() -> None:
    with pytest.raises(DeriError, match="needs model.signal.normalise=millivolt"):
        load_recipe("deri-reference", ["train.augment.noise=0.1"])
    with pytest.raises(ValidationError):
        Augment(gain=1.5)
