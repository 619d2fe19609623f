"""Pre-training on the ECG–report pairs of a store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from deri._version import __version__
from deri.ecg.measure import VERSION
from deri.evaluation.retrieval import recall_at_k
from deri.files import write_sealed, write_yaml, writing
from deri.models import EcgTextModel, build_model, build_text_encoder
from deri.models.build import check_names, model_card
from deri.models.device import to_device
from deri.models.output import Output
from deri.objectives import PairBatch, PairObjective
from deri.objectives.gather import gather
from deri.objectives.terms import itself
from deri.progress import SILENT, Progress
from deri.recipes import Recipe
from deri.store import Store
from deri.training.augment import augment
from deri.training.batches import Batch, BatchPlan, rows_of
from deri.training.distributed import Draws, Replica, broadcast_weights, join_replicas
from deri.training.engine import Engine, EpochResult, Task, Validation, derived_seed
from deri.training.log import RunLog, Tally
from deri.training.mixture import Mixture, padded
from deri.training.optimiser import adamw
from deri.training.recompute import checkpoint_blocks
from deri.training.schedule import with_warmup
from deri.training.sources import open_sources
from deri.training.spread import Drawn, Rows, spread
from deri.training.state import Checkpoint, claim_directory
from deri.training.warm_start import Start, start_of

CANDIDATES = 256
"""Pairs that the validation loss contrasts with one another."""
_VALIDATION_SEED, _VALIDATION_BATCH = 20250101, 64
_KNOWN = ("report_ids", "findings", "measurements")
"""What the objective uses of a batch besides the model's output."""


def pretrain(
    data: str | Path | Store | Sequence[str | Path | Store],
    out: str | Path,
    recipe: Recipe,
    *,
    init: str | Path | None = None,
    resume: bool = False,
    device: str | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Pre-train a model on the pairs of a store; returns the run directory.

    The run holds ``recipe.yaml``, ``run.json``, ``metrics.jsonl``, ``checkpoints/last.safetensors`` (to resume) and
    ``model/`` (the weights with the lowest held-out loss, ready for use). Started by ``torchrun`` it uses all
    processes, with the batches of one. With ``resume`` it continues from the last checkpoint, on any number of
    processes; on a CPU, on one, with the same bits as an undisturbed run. With another ``train.epochs`` the steps to
    come follow the schedule of that length. Ctrl-C, SIGTERM and SIGUSR1 keep a checkpoint after the step.

    Args:
        data: a store made by ``deri prepare``, or several, mixed as ``train.mix`` says.
        out: the run directory.
        recipe: what to train and how.
        init: a model directory, run or built-in name whose weights it starts from, where they fit.
        resume: continue the run in ``out``; starts it where there is none yet.
        device: ``cpu``, ``cuda`` or ``cuda:N``; the GPU where there is one when not given.
        progress: receives messages, and (steps done, steps in all).
    """
    out = Path(out)
    stores = [data] if isinstance(data, str | Path | Store) else list(data)
    setup = _Setup(stores, out, recipe, None if init is None else str(init), resume)
    with (
        writing(out, "go on with --resume"),
        join_replicas(device, recipe.train.timeout) as replica,
        _engine(setup, replica, progress if replica.main else SILENT) as engine,
        replica.watched(),
    ):
        engine.fit()
        replica.barrier()
    return out


class PairTask(Task[Batch]):
    """Contrastive pre-training on ECG–report pairs."""

    advice = "lower train.lr or use train.precision=fp32"
    batch_option = "train.batch_size or raise train.accumulate"

    def __init__(
        self, model: EcgTextModel, pairs: Mixture, plan: BatchPlan, recipe: Recipe, replica: Replica, out: Path
    ) -> None:
        self.model, self.pairs, self.plan, self.recipe, self.replica = model, pairs, plan, recipe, replica
        self.objective = PairObjective(recipe.objective)
        self.steps_per_epoch = plan.steps_per_epoch
        self.trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.val_rows = pairs.rows("val")
        self._kept = out / "model"
        self._mine = replica.part(plan.batch_size)
        self._rows = Rows(self._mine, plan.batch_size)
        if replica.world > 1 or recipe.train.accumulate > 1:
            batchnorm = recipe.train.sync_batchnorm and replica.world > 1
            spread(model, self._rows, batchnorm=batchnorm)
        if recipe.train.checkpointing:
            checkpoint_blocks(model.backbone.blocks)

    def seed(self, step: int) -> int:
        """Of dropout: drawn for the whole batch, but for that of a text encoder, which differs between processes."""
        own = 0 if self.recipe.model.text.cacheable else self.replica.rank
        return derived_seed(self.recipe.train.seed, step, own)

    def step_rows(self, step: int) -> list[np.ndarray]:
        """Of all processes."""
        return [self._ordered(step)[0]]

    def _ordered(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows of a step, and their places in the plan."""
        rows = self.plan.step_rows(step)
        order = self.pairs.order(rows)
        return rows[order], order

    def records(self, rows: np.ndarray) -> pd.DataFrame:
        """Of their stores."""
        return self.pairs.records(rows)

    def read(self, step: int) -> list[Batch]:
        """The pairs of a step; which show one statement is drawn for the global batch: two processes equal one."""
        rows, order = self._ordered(step)
        draws = None
        if self.recipe.train.statements or self.recipe.train.class_texts:
            generator = np.random.default_rng([self.recipe.train.seed, step])
            draws = generator.random((len(rows), 2))[order][self._mine]
        return [self.pairs.batch(rows[self._mine], draws)]

    def prepare(self, part: Batch, step: int) -> Batch:
        """Augmented, with the draws of the masked views."""
        train = self.recipe.train
        batch = replace(to_device(part, self.replica.device), first=self._mine.start)
        if batch.text is not None and self.replica.world > 1:
            # What dropout draws for a text depends on the longest one of all processes.
            batch.text = padded(batch.text, self.replica.most(batch.text.tokens.shape[1]))
        draws = Draws(self._mine, self.plan.batch_size, torch.Generator(), self.replica.device)
        if train.augment.active:
            draws.generator.manual_seed(derived_seed(train.seed, step, -2))
            batch = augment(batch, train.augment, self.recipe.model.signal.fs, draws)
        draws.generator.manual_seed(derived_seed(train.seed, step, -1))
        return with_view_noise(batch, self.model, draws)

    def pieces(self, part: Batch) -> list[Batch]:
        """``train.accumulate`` of them."""
        k, first = self.recipe.train.accumulate, part.first or 0
        if k == 1:
            return [part]
        self._rows.drawn = Drawn()
        places = [replace(self.replica, rank=i, world=k).part(len(part.ecg)) for i in range(k)]
        return [replace(rows_of(part, place), first=first + place.start) for place in places]

    def forward(self, part: Batch) -> Output:
        """All embeddings of the objective."""
        first = part.first or 0
        self._rows.part = slice(first, first + len(part.ecg))
        output: Output = self.model(
            part.ecg,
            part.input_ids,
            part.attention_mask,
            features=part.text,
            valid_samples=part.valid_samples,
            view_noise=part.view_noise,
        )
        return replace(output, ecg_tokens=None, ecg_mask=None)

    def losses(self, output: Output, part: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The objective over the batches of all processes."""
        known = {name: getattr(part, name) for name in _KNOWN}
        collect = partial(gather, sizes=self.replica.sizes(self.plan.batch_size))
        return self.objective(output, PairBatch(gather=collect, **known))

    def suspects(self, part: Batch, output: Output) -> Tensor:
        """By ECG and text as they were read, and by all embeddings."""
        read = [part.ecg] + ([] if part.text is None else [part.text.pooled, part.text.tokens])
        embedded: list[Tensor] = []
        output.map(lambda value: embedded.append(value) or value)  # type: ignore[func-returns-value]
        return 2 * _not_finite(read) | _not_finite(embedded)

    def amounts(self, part: Batch) -> dict[str, int]:
        """Pairs of all processes."""
        return {"samples": self.plan.batch_size}

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
        self._rows.drawn = None

    def validate(self) -> Validation | None:
        """Terms of the held-out pairs, their weighted sum ``loss``, and retrieval recall. No labels are looked at.

        Of several stores each is scored alone, its values under ``STORE/``; ``loss`` is the mean by their shares.
        """
        held_out = [rows for rows in self.val_rows if len(rows) >= 2]
        if not held_out:
            return None
        found = [self._validate(rows) for rows in held_out]
        if len(self.val_rows) == 1:
            return Validation(found[0]["loss"], found[0])
        names = [f"{i}-{reader.store.name}" for i, reader in enumerate(self.pairs.readers)]
        used = [i for i, rows in enumerate(self.val_rows) if len(rows) >= 2]
        shares = np.array(
            [(self.recipe.train.mix or [len(rows) for rows in self.pairs.rows("train")])[i] for i in used]
        )
        loss = float(np.average([values["loss"] for values in found], weights=shares))
        values = {f"{names[i]}/{key}": value for i, one in zip(used, found, strict=True) for key, value in one.items()}
        return Validation(loss, {"loss": loss, "candidates": found[0]["candidates"]} | values)

    @torch.no_grad()
    def _validate(self, rows: np.ndarray) -> dict[str, float]:
        """The values of one store.

        A term is the mean over groups of ``candidates`` pairs (fewer only where fewer are held out; the last group
        reaches back), whatever the batch size and the number of processes. Groups and random views are the same every
        time, so that numbers of different steps and runs compare.
        """
        device = self.replica.device
        generator = torch.Generator().manual_seed(_VALIDATION_SEED)
        outputs: list[Output] = []
        embedded: list[tuple[np.ndarray, np.ndarray]] = []
        kept: list[Batch] = []
        for start in range(0, len(rows), _VALIDATION_BATCH):
            self.replica.beat()
            batch = to_device(self.pairs.batch(rows[start : start + _VALIDATION_BATCH]), device)
            embedded.append(_embed(self.model, batch))
            batch = with_view_noise(batch, self.model, Draws(slice(None), len(batch.ecg), generator, device))
            outputs.append(self.forward(batch))
            kept.append(batch)
        output = outputs[0].map(lambda *parts: torch.cat(parts), *outputs[1:])
        known = {
            name: torch.cat([getattr(batch, name) for batch in kept])
            for name in _KNOWN
            if getattr(kept[0], name) is not None
        }
        size = min(len(rows), CANDIDATES)
        starts = list(range(0, len(rows) - size + 1, size))
        starts += [len(rows) - size] if len(rows) % size else []
        sums: Counter[str] = Counter()
        for start in starts:
            group = itemgetter(slice(start, start + size))
            part = PairBatch(gather=itself, **{name: group(value) for name, value in known.items()})
            losses, terms = self.objective(output.map(group), part)
            sums.update({"loss": float(sum(losses.values()))} | {name: float(value) for name, value in terms.items()})
        values = {name: value / len(starts) for name, value in sums.items()}
        ecg, text = (np.concatenate(part) for part in zip(*embedded, strict=True))
        return values | {"candidates": size} | recall_at_k(ecg, text, known["report_ids"].cpu().numpy())

    def epoch_done(self, result: EpochResult) -> None:
        """Write the model of the lowest held-out loss, or the last one where no pairs are held out."""
        if result.best:
            loss, found = "", result.validation
            if found is not None:
                loss = f", held-out loss {found.criterion:.4f} among {found.values['candidates']} pairs"
            text = f"\nPre-trained with recipe `{self.recipe.name}`; weights of step {result.step}{loss}.\n"
            self.model.save_pretrained(self._kept, card=model_card(self.model) + text)


def with_view_noise(batch: Batch, model: EcgTextModel, draws: Draws) -> Batch:
    """The batch with the draws of the model's two views, where it takes them."""
    if not model.random_views:
        return batch
    n = model.n_tokens(batch.ecg.shape[-1])
    return replace(batch, view_noise=(draws.uniform(n), draws.uniform(n)))


def _not_finite(values: Sequence[Tensor]) -> Tensor:
    """(B,) int8: 1 for the rows of ``values``, (B, …) each, that hold a number that is not finite."""
    return torch.stack([~value.detach().isfinite().flatten(1).all(dim=1) for value in values]).any(dim=0).to(torch.int8)


def _embed(model: EcgTextModel, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Unit inference embeddings (B, d) of ECGs and texts."""
    features = model.text_features(batch.input_ids, batch.attention_mask, batch.text)
    ecg, text = model.ecg_embedding(batch.ecg, batch.valid_samples), model.text_embedding(features)
    ecg, text = (F.normalize(x.float(), dim=-1).cpu() for x in (ecg, text))
    return ecg.numpy(), text.numpy()


@dataclass(frozen=True)
class _Setup:
    """What a run is told."""

    stores: list[str | Path | Store]
    out: Path
    recipe: Recipe
    init: str | None
    resume: bool


@contextmanager
def _engine(setup: _Setup, replica: Replica, progress: Progress) -> Iterator[Engine[Batch]]:
    """Everything ready to fit; the log is closed in the end."""
    out, recipe, train = setup.out, setup.recipe, setup.recipe.train
    check_names(recipe.model)
    if replica.main:
        claim_directory(out, resume=setup.resume)
    stores = [Store.open(store) for store in setup.stores]
    text_encoder = build_text_encoder(recipe.model.text).to(replica.device)
    model = build_model(recipe.model, seed=train.seed, text_encoder=text_encoder)
    model.recipe_name = recipe.name
    start = start_of(out, model, setup.init, resume=setup.resume, progress=progress)
    model = model.to(replica.device)
    pairs = open_sources(stores, model, recipe, replica, fit=start is None, progress=progress)
    plan = BatchPlan.make(pairs.rows("train"), train, replica.world)
    task = PairTask(model, pairs, plan, recipe, replica, out)
    kept = Checkpoint(
        out / "checkpoints" / "last.safetensors", _identity(recipe, stores, start), frozenset({"train.epochs"})
    )
    engine = Engine(
        task,
        with_warmup(train, plan.steps_per_epoch * train.epochs, progress),
        adamw(task.trained, train.lr, train.weight_decay),
        replica,
        checkpoint=kept,
        progress=progress,
    )
    if setup.resume and engine.resume():
        progress.message(f"resuming {out} at step {engine.state.step}")
    if replica.main:
        write_yaml(out / "recipe.yaml", recipe.model_dump(mode="json"))
        data = [str(store.path) for store in stores]
        left_out = {str(store.path): store.provenance["left_out"] for store in stores if len(store.left_out)}
        prints = [store.fingerprint for store in stores]
        one = len(stores) == 1
        about: dict[str, Any] = {"data": data[0] if one else data, "store": prints[0] if one else prints}
        about |= {"processes": replica.world, "run_id": kept.run_id} | ({"init": asdict(start)} if start else {})
        about |= {"left_out": left_out} if left_out else {}
        write_sealed(out / "run.json", {"format": "deri-run", "version": 1, "deri_version": __version__, **about})
    broadcast_weights(model, replica.world)
    replica.barrier()
    _announce(task, engine.precision, progress)
    if not replica.main:
        yield engine
        return
    engine.log = RunLog(out / "metrics.jsonl", engine.state.step, board=out / "tensorboard", progress=progress)
    try:
        yield engine
    finally:
        engine.log.close()


def _announce(task: PairTask, precision: str, progress: Progress) -> None:
    plan, recipe, replica = task.plan, task.recipe, task.replica
    counts = " + ".join(str(len(rows)) for rows in task.pairs.rows("train"))
    mixed = f" ({' + '.join(map(str, plan.counts))})" if len(plan.counts) > 1 else ""
    progress.message(
        f"{recipe.name}: {counts} training pairs, batches of {plan.batch_size}{mixed}"
        f"{f' over {replica.world} processes' if replica.world > 1 else ''}, "
        f"{plan.steps_per_epoch} steps an epoch, {precision} on {replica.device}"
    )
    if recipe.train.batch_size > plan.batch_size:
        progress.message(
            f"warning: train.batch_size={recipe.train.batch_size} is more than the store has: all in one batch"
        )
    if all(len(rows) < 2 for rows in task.val_rows):
        progress.message("warning: no held-out pairs (split val): the last weights are kept, not the best")


def _identity(recipe: Recipe, stores: list[Store], start: Start | None) -> dict[str, Any]:
    """What decides what is computed; how often it is logged or saved, and by how many processes, does not."""
    content = recipe.model_dump(mode="json")
    for key in ("log_steps", "checkpoint_steps", "prefetch", "timeout", "checkpointing"):
        del content["train"][key]
    if recipe.train.accumulate == 1:  # runs of before have no such key
        del content["train"]["accumulate"]
    if recipe.model.measurements:
        content["version of measurements"] = VERSION
    prints = [store.fingerprint for store in stores]
    # Runs of before with several processes had batches of as many times the size: they do not fit.
    content |= {"store": prints[0] if len(prints) == 1 else prints, "processes": 1}
    return content | ({"init": start.digest} if start else {})
