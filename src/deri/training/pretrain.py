"""Pre-training on the ECG–report pairs of a store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from deri._version import __version__
from deri.errors import DeriError
from deri.evaluation.retrieval import recall_at_k
from deri.files import write_json, write_text, writing
from deri.models import EcgTextModel, build_model, build_text_encoder
from deri.models.build import check_names, model_card
from deri.models.device import to_device
from deri.models.output import Output
from deri.models.text import TextEncoder
from deri.objectives import PairObjective
from deri.progress import SILENT, Progress
from deri.recipes import Recipe, schema
from deri.reports.statements import split_statements
from deri.store import Store
from deri.store import TextFeatures as TextFeatureCache
from deri.training.augment import augment
from deri.training.batches import Batch, BatchPlan, PairReader, SingleStatements
from deri.training.distributed import Draws, Replica, broadcast_weights, join_replicas, synchronise_batchnorm
from deri.training.engine import Engine, EpochResult, Tally, Task, Validation, derived_seed
from deri.training.log import RunLog
from deri.training.optimiser import adamw
from deri.training.state import Checkpoint, claim_directory

CANDIDATES = 256
"""Pairs that the validation loss contrasts with one another."""
_VALIDATION_SEED, _VALIDATION_BATCH = 20250101, 64


def pretrain(
    data: str | Path,
    out: str | Path,
    recipe: Recipe,
    *,
    resume: bool = False,
    device: str | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Pre-train a model on the pairs of a store; returns the run directory.

    The run holds ``recipe.yaml``, ``run.json``, ``metrics.jsonl``, ``checkpoints/last.safetensors`` (to resume) and
    ``model/`` (the weights with the lowest held-out loss, ready for use). Started by ``torchrun`` it uses all
    processes. With ``resume`` it continues from the last checkpoint, on a CPU with the same bits as an undisturbed run;
    with another ``train.epochs`` the steps to come follow the schedule of that length. Ctrl-C and SIGTERM keep a
    checkpoint after the step.

    Args:
        data: a store made by ``deri prepare``.
        out: the run directory.
        recipe: what to train and how.
        resume: continue the run in ``out``; starts it where there is none yet.
        device: ``cpu``, ``cuda`` or ``cuda:N``; the GPU where there is one when not given.
        progress: receives messages, and (steps done, steps in all).
    """
    out = Path(out)
    with (
        writing(out, "go on with --resume"),
        join_replicas(device) as replica,
        _engine(Path(data), out, recipe, resume, replica, progress if replica.main else SILENT) as engine,
    ):
        engine.fit()
        replica.barrier()
    return out


class PairTask(Task[Batch]):
    """Contrastive pre-training on ECG–report pairs."""

    advice = "lower train.lr or use train.precision=fp32"
    batch_option = "train.batch_size"

    def __init__(
        self, model: EcgTextModel, reader: PairReader, plan: BatchPlan, recipe: Recipe, replica: Replica, out: Path
    ) -> None:
        self.model, self.reader, self.plan, self.recipe, self.replica = model, reader, plan, recipe, replica
        self.store = reader.store
        self.objective = PairObjective(recipe.objective)
        self.steps_per_epoch = plan.steps_per_epoch
        self.trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.val_rows = reader.rows("val")
        self._kept = out / "model"

    def seed(self, step: int) -> int:
        """Of dropout, which differs between processes."""
        return derived_seed(self.recipe.train.seed, step, self.replica.rank)

    def step_rows(self, step: int) -> list[np.ndarray]:
        """Of this process."""
        return [self.plan.step_rows(step)]

    def read(self, step: int) -> list[Batch]:
        """The pairs of a step; which show one statement is drawn for the global batch: two processes equal one."""
        rows = self.plan.step_rows(step)
        draws = None
        if self.recipe.train.statements:
            b, rank = len(rows), self.replica.rank
            generator = np.random.default_rng([self.recipe.train.seed, step])
            draws = generator.random((self.replica.world * b, 2))[rank * b : (rank + 1) * b]
        return [self.reader.batch(rows, draws)]

    def prepare(self, part: Batch, step: int) -> Batch:
        """Augmented, with the draws of the masked views."""
        train = self.recipe.train
        batch = to_device(part, self.replica.device)
        if train.augment.active:
            generator = torch.Generator().manual_seed(derived_seed(train.seed, step, -2))
            batch = augment(batch, train.augment, self.recipe.model.signal.fs, generator, self.replica)
        generator = torch.Generator().manual_seed(derived_seed(train.seed, step, -1))
        return with_view_noise(batch, self.model, generator, self.replica)

    def forward(self, part: Batch) -> Output:
        """All embeddings of the objective."""
        output: Output = self.model(
            part.ecg,
            part.input_ids,
            part.attention_mask,
            features=part.text,
            valid_samples=part.valid_samples,
            view_noise=part.view_noise,
        )
        return output

    def losses(self, output: Output, part: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The objective over the batches of all processes."""
        return self.objective(output, part.report_ids, findings=part.findings)

    def amounts(self, part: Batch) -> dict[str, int]:
        """Pairs of all processes."""
        return {"samples": len(part.ecg) * self.replica.world}

    def logged(self, tally: Tally) -> dict[str, float]:
        """Loss and terms of the last step."""
        return {"loss": float(tally.last)} | {name: float(value) for name, value in tally.terms.items()}

    def weights(self) -> dict[str, Tensor]:
        """Without a frozen text encoder, which the recipe names."""
        state = self.model.state_dict()
        keep_text = self.model.text_encoder.trained
        return {name: value for name, value in state.items() if keep_text or not name.startswith("text_encoder.")}

    def train_mode(self, on: bool) -> None:
        """Of the whole model."""
        self.model.train(on)

    @torch.no_grad()
    def validate(self) -> Validation | None:
        """Terms of the held-out pairs, their weighted sum ``loss``, and retrieval recall. No labels are looked at.

        A term is the mean over groups of ``candidates`` pairs (fewer only where fewer are held out; the last group
        reaches back), whatever the batch size and the number of processes. Groups and random views are the same every
        time, so that numbers of different steps and runs compare.
        """
        rows, device = self.val_rows, self.replica.device
        if len(rows) < 2:
            return None
        generator, alone = torch.Generator().manual_seed(_VALIDATION_SEED), Replica(0, 1, device)
        outputs: list[Output] = []
        embedded: list[tuple[np.ndarray, np.ndarray]] = []
        findings: list[Tensor] = []
        for start in range(0, len(rows), _VALIDATION_BATCH):
            batch = to_device(self.reader.batch(rows[start : start + _VALIDATION_BATCH]), device)
            embedded.append(_embed(self.model, batch))
            batch = with_view_noise(batch, self.model, generator, alone)
            outputs.append(replace(self.forward(batch), ecg_tokens=None, ecg_mask=None))
            findings += [] if batch.findings is None else [batch.findings]
        output = outputs[0].map(lambda *parts: torch.cat(parts), *outputs[1:])
        ids = torch.from_numpy(self.store.report_ids[rows]).to(device)
        known = torch.cat(findings) if findings else None
        size = min(len(rows), CANDIDATES)
        starts = list(range(0, len(rows) - size + 1, size))
        starts += [len(rows) - size] if len(rows) % size else []
        sums: Counter[str] = Counter()
        for start in starts:
            group = slice(start, start + size)
            part = output.map(itemgetter(group))
            named = None if known is None else known[group]
            losses, terms = self.objective(part, ids[group], findings=named, local=True)
            sums.update({"loss": float(sum(losses.values()))} | {name: float(value) for name, value in terms.items()})
        values = {name: value / len(starts) for name, value in sums.items()}
        ecg, text = (np.concatenate(part) for part in zip(*embedded, strict=True))
        recall = recall_at_k(ecg, text, ids.cpu().numpy())
        return Validation(values["loss"], values | {"candidates": size} | recall)

    def epoch_done(self, result: EpochResult) -> None:
        """Write the model of the lowest held-out loss, or the last one where no pairs are held out."""
        if result.best:
            loss, found = "", result.validation
            if found is not None:
                loss = f", held-out loss {found.criterion:.4f} among {found.values['candidates']} pairs"
            text = f"\nPre-trained with recipe `{self.recipe.name}`; weights of step {result.step}{loss}.\n"
            self.model.save_pretrained(self._kept, card=model_card(self.model) + text)


def with_view_noise(batch: Batch, model: EcgTextModel, generator: torch.Generator, replica: Replica) -> Batch:
    """The batch with the draws of the model's two views, where it takes them."""
    if not model.random_views:
        return batch
    draws, n = Draws(len(batch.ecg), generator, replica), model.n_tokens(batch.ecg.shape[-1])
    return replace(batch, view_noise=(draws.uniform(n), draws.uniform(n)))


def _embed(model: EcgTextModel, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Unit inference embeddings (B, d) of ECGs and texts."""
    features = model.text_features(batch.input_ids, batch.attention_mask, batch.text)
    ecg, text = model.ecg_embedding(batch.ecg, batch.valid_samples), model.text_embedding(features)
    ecg, text = (F.normalize(x.float(), dim=-1).cpu() for x in (ecg, text))
    return ecg.numpy(), text.numpy()


@contextmanager
def _engine(
    data: Path, out: Path, recipe: Recipe, resume: bool, replica: Replica, progress: Progress
) -> Iterator[Engine[Batch]]:
    """Everything ready to fit; the log is closed in the end."""
    train, main = recipe.train, replica.main
    check_names(recipe.model)
    claim_directory(out, resume=resume)
    store = Store.open(data)
    _require_contrast(store)
    text_encoder = build_text_encoder(recipe.model.text).to(replica.device)
    cache = _cached(store, text_encoder, recipe, replica) if recipe.model.text.cacheable else None
    model = build_model(recipe.model, seed=train.seed, text_encoder=text_encoder).to(replica.device)
    model.recipe_name = recipe.name
    if train.sync_batchnorm and replica.world > 1:
        synchronise_batchnorm(model)
    reader = PairReader(store, model, cache, _single_statements(store, text_encoder, recipe, replica))
    plan = BatchPlan.make(reader.rows("train"), train, replica.rank, replica.world)
    task = PairTask(model, reader, plan, recipe, replica, out)
    kept = Checkpoint(
        out / "checkpoints" / "last.safetensors", _identity(recipe, store, replica), frozenset({"train.epochs"})
    )
    engine = Engine(
        task,
        _with_warmup(train, plan.steps_per_epoch * train.epochs, progress),
        adamw(task.trained, train.lr, train.weight_decay),
        replica,
        checkpoint=kept,
        progress=progress,
    )
    if resume and engine.resume():
        progress.message(f"resuming {out} at step {engine.state.step}")
    if main:
        write_text(out / "recipe.yaml", yaml.safe_dump(recipe.model_dump(), sort_keys=False))
        about = {"data": str(data), "store": store.fingerprint, "processes": replica.world, "run_id": kept.run_id}
        write_json(out / "run.json", {"format": "deri-run", "version": 1, "deri_version": __version__, **about})
    broadcast_weights(model, replica.world)
    replica.barrier()
    progress.message(
        f"{recipe.name}: {len(plan.rows)} training pairs, batches of {plan.batch_size} × {replica.world}, "
        f"{plan.steps_per_epoch} steps an epoch, {engine.precision} on {replica.device}"
    )
    if train.batch_size * replica.world > len(plan.rows):
        progress.message(f"warning: train.batch_size={train.batch_size} is more than the store has: all in one batch")
    if len(task.val_rows) < 2:
        progress.message("warning: no held-out pairs (split val): the last weights are kept, not the best")
    if not main:
        yield engine
        return
    engine.log = RunLog(out / "metrics.jsonl", engine.state.step, board=out / "tensorboard", progress=progress)
    try:
        yield engine
    finally:
        engine.log.close()


def _require_contrast(store: Store) -> None:
    """DeriError where all training pairs have the same text: one text is nothing to tell apart."""
    ids = store.report_ids[store.rows("train")]
    if len(known := np.unique(ids[ids >= 0])) == 1:
        raise DeriError(
            f"the training records of {store.path} all have one report, {store.reports[known[0]][:60]!r}: there is "
            "nothing to contrast; prepare the store with the reports of the recordings"
        )


def _with_warmup(train: schema.Train, total: int, progress: Progress) -> schema.Train:
    """The recipe's warm-up, or a tenth of a short run of ``total`` steps."""
    if train.schedule == "restarts" or train.warmup_steps <= total // 10:
        return train
    progress.message(f"warm-up over {total // 10} of {total} steps, a tenth, instead of {train.warmup_steps}")
    return train.model_copy(update={"warmup_steps": total // 10})


def _cached(
    store: Store, encoder: TextEncoder, recipe: Recipe, replica: Replica, texts: list[str] | None = None, kind: str = ""
) -> TextFeatureCache:
    """Features of the reports, or ``texts``: one process computes them, the others find them done."""
    if not replica.main:
        replica.barrier()
    cache = TextFeatureCache.build(store, encoder, texts=texts, kind=kind, dtype=recipe.model.text.cache_dtype)
    if replica.main:
        replica.barrier()
    return cache


def _single_statements(store: Store, encoder: TextEncoder, recipe: Recipe, replica: Replica) -> SingleStatements | None:
    if recipe.objective.shared != "findings":
        return None
    statements = split_statements(store.reports)
    share = recipe.train.statements
    features = None
    if share and statements.texts:
        features = _cached(store, encoder, recipe, replica, statements.texts, "statements")
    return SingleStatements(statements, features, share)


def _identity(recipe: Recipe, store: Store, replica: Replica) -> dict[str, Any]:
    """What decides what is computed; how often it is logged or saved does not belong to it."""
    content = recipe.model_dump()
    for key in ("log_steps", "checkpoint_steps", "prefetch"):
        del content["train"][key]
    return {**content, "store": store.fingerprint, "processes": replica.world}
