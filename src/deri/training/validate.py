"""Validation on held-out patients: the pre-training losses, and retrieval. No labels are looked at."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from deri.evaluation.retrieval import recall_at_k
from deri.training.batches import Batch, Pairs
from deri.training.task import PairTask

_SEED = 20250101


@torch.no_grad()
def validate(task: PairTask, pairs: Pairs, rows: np.ndarray, batch_size: int) -> dict[str, float]:
    """Mean of each term over the batches of ``rows``, their weighted sum ``loss``, and retrieval recall.

    The same batches and the same random views every time, so that numbers of different steps compare. A last batch of
    fewer than two pairs has no negatives and is left out of the losses.
    """
    model = task.model
    was_training = model.training
    model.eval()
    device = task.process.device
    generator = torch.Generator().manual_seed(_SEED)
    sums: dict[str, float] = {}
    total, pairs_seen = 0.0, 0
    ecg, text, ids = [], [], []
    for start in range(0, len(rows), batch_size):
        batch = pairs.batch(rows[start : start + batch_size]).to(device)
        e, t = _embed(task, batch)
        ecg.append(e)
        text.append(t)
        ids.append(batch.report_ids.cpu().numpy())
        if len(batch.ecg) < 2:
            continue
        losses, terms = task.losses(batch, generator, everywhere=False)
        weight = len(batch.ecg)
        pairs_seen += weight
        total += weight * float(sum(losses.values()))
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + weight * float(value)
    model.train(was_training)
    result = {"loss": total / pairs_seen if pairs_seen else float("nan")}
    result |= {name: value / pairs_seen for name, value in sums.items()}
    return result | recall_at_k(np.concatenate(ecg), np.concatenate(text), np.concatenate(ids))


def _embed(task: PairTask, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    model = task.model
    features = model.text_features(batch.input_ids, batch.attention_mask, batch.text)
    ecg = model.ecg_embedding(batch.ecg, batch.valid_samples)
    text = model.text_embedding(features)
    return tuple(F.normalize(x.float(), dim=-1).cpu().numpy() for x in (ecg, text))  # type: ignore[return-value]
