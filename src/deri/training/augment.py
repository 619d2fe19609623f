"""Random changes of a training batch: lost leads, other amplitudes, noise, filters. In mV, on the batch's device.

They make the encoder indifferent to what differs between devices and electrodes and says nothing of the heart. The
sizes are the recipe's (:class:`deri.recipes.schema.Augment`).
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from deri.ecg.normalise import MILLIVOLT_LIMIT
from deri.recipes import schema
from deri.training.batches import Batch
from deri.training.distributed import Draws

_WAVES = 3  # sines that make up a baseline wander


def augment(batch: Batch, config: schema.Augment, fs: float, draws: Draws) -> Batch:
    """Return the batch with changed ECGs; texts and masks are the same objects.

    Leads that were missing (all zero) stay so, and padding keeps its value. Every lead is centred over its samples and
    clipped again, as the normalisation of inference does it.

    Args:
        batch: ``ecg`` (B, leads, n) in mV, each lead with mean zero.
        config: what is changed, and how much.
        fs: sampling rate of ``ecg``, Hz.
        draws: of its rows; the generator is in the same state on every process.
    """
    ecg = batch.ecg
    b, leads, n = ecg.shape
    present = (ecg != 0).any(dim=2, keepdim=True)
    real = torch.ones(b, 1, n, dtype=torch.bool, device=ecg.device)
    if batch.valid_samples is not None:
        real = torch.arange(n, device=ecg.device) < batch.valid_samples[:, None, None]
    time = torch.arange(n, device=ecg.device) / fs
    if config.filters:
        ecg = torch.where(draws.uniform(1, 1) < config.filters, _filtered(ecg, fs, draws), ecg)
    if config.gain:
        ecg = ecg * (1 + config.gain * (2 * draws.uniform(1, 1) - 1))
    if config.wander:
        ecg = ecg + config.wander * draws.uniform(1, 1) * _wander(leads, time, draws)
    if config.mains:
        hertz = torch.where(draws.uniform(1, 1) < 0.5, 50.0, 60.0)
        if fs > 2 * 60.0:
            size = config.mains * draws.uniform(leads, 1)
            ecg = ecg + size * torch.sin(2 * math.pi * (hertz * time + draws.uniform(1, 1)))
    if config.noise:
        ecg = ecg + config.noise * draws.uniform(leads, 1) * draws.normal(leads, n)
    if config.lead_dropout:
        present = present & _kept_leads(leads, config.lead_dropout, draws, present)
    mean = ecg.masked_fill(~real, 0.0).sum(dim=2, keepdim=True) / real.sum(dim=2, keepdim=True).clamp_min(1)
    ecg = (ecg - mean).clamp(-MILLIVOLT_LIMIT, MILLIVOLT_LIMIT)
    ecg = torch.where(real, ecg, batch.ecg).masked_fill(~present, 0.0)
    return replace(batch, ecg=ecg)


def _wander(leads: int, time: Tensor, draws: Draws) -> Tensor:
    """(B, leads, n) sums of slow sines, at most 1."""
    total = torch.zeros((), device=time.device)
    for _ in range(_WAVES):
        hertz = 0.05 + 0.45 * draws.uniform(1, 1)
        total = total + (2 * draws.uniform(leads, 1) - 1) * torch.sin(
            2 * math.pi * (hertz * time + draws.uniform(leads, 1))
        )
    return total / _WAVES


def _filtered(ecg: Tensor, fs: float, draws: Draws) -> Tensor:
    """First-order high-pass and third-order low-pass with drawn corners, without phase, over the whole window."""
    n = ecg.shape[2]
    hertz = torch.fft.rfftfreq(n, 1 / fs, device=ecg.device)
    high = 0.05 * (0.7 / 0.05) ** draws.uniform(1, 1)
    low = 15.0 * (150.0 / 15.0) ** draws.uniform(1, 1)
    response = (hertz / torch.hypot(hertz, high)) / torch.sqrt(1 + (hertz / low) ** 6)
    filtered: Tensor = torch.fft.irfft(torch.fft.rfft(ecg, dim=2) * response, n=n, dim=2)
    return filtered


def _kept_leads(leads: int, share: float, draws: Draws, present: Tensor) -> Tensor:
    """(B, leads, 1) bool: for ``share`` of the recordings a random non-empty set of the present leads, else all."""
    chosen = draws.uniform(1, 1) < share
    order = draws.uniform(leads, 1).masked_fill(~present, 2.0).argsort(dim=1).argsort(dim=1)
    kept = 1 + (draws.uniform(1, 1) * (leads - 1)).long()
    return ~chosen | (order < kept)
