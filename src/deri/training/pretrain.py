"""Pre-training on the ECG–report pairs of a store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from deri._version import __version__
from deri.evaluation.retrieval import recall_at_k
from deri.files import read_sealed, write_sealed, write_yaml, writing
from deri.models import EcgTextModel, build_model, build_text_encoder
from deri.models.build import check_names, model_card
from deri.models.device import to_device
from deri.models.output import Output
from deri.objectives import PairBatch, PairObjective
from deri.progress import SILENT, Progress
from deri.recipes import Recipe, schema
from deri.store import Store
from deri.training.augment import augment
from deri.training.batches import Batch, BatchPlan
from deri.training.distributed import Draws, Replica, broadcast_weights, join_replicas, synchronise_batchnorm
from deri.training.engine import Engine, EpochResult, Tally, Task, Validation, derived_seed
from deri.training.log import RunLog
from deri.training.mixture import Mixture
from deri.training.optimiser import adamw
from deri.training.sources import open_sources
from deri.training.state import Checkpoint, claim_directory
from deri.training.warm_start import Start, take_weights

CANDIDATES = 256
"""Pairs that the validation loss contrasts with one another."""
_VALIDATION_SEED, _VALIDATION_BATCH = 20250101, 64


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
    processes. With ``resume`` it continues from the last checkpoint, on a CPU with the same bits as an undisturbed run;
    with another ``train.epochs`` the steps to come follow the schedule of that length. Ctrl-C and SIGTERM keep a
    checkpoint after the step.

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
        join_replicas(device) as replica,
        _engine(setup, replica, progress if replica.main else SILENT) as engine,
    ):
        engine.fit()
        replica.barrier()
    return out


class PairTask(Task[Batch]):
    """Contrastive pre-training on ECG–report pairs."""

    advice = "lower train.lr or use train.precision=fp32"
    batch_option = "train.batch_size"

    def __init__(
        self, model: EcgTextModel, pairs: Mixture, plan: BatchPlan, recipe: Recipe, replica: Replica, out: Path
    ) -> None:
        self.model, self.pairs, self.plan, self.recipe, self.replica = model, pairs, plan, recipe, replica
        self.objective = PairObjective(recipe.objective)
        self.steps_per_epoch = plan.steps_per_epoch
        self.trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.val_rows = pairs.rows("val")
        self._kept = out / "model"

    def seed(self, step: int) -> int:
        """Of dropout, which differs between processes."""
        return derived_seed(self.recipe.train.seed, step, self.replica.rank)

    def step_rows(self, step: int) -> list[np.ndarray]:
        """Of this process."""
        return [self.plan.step_rows(step)]

    def records(self, rows: np.ndarray) -> pd.DataFrame:
        """Of their stores."""
        return self.pairs.records(rows)

    def read(self, step: int) -> list[Batch]:
        """The pairs of a step; which show one statement is drawn for the global batch: two processes equal one."""
        rows = self.plan.step_rows(step)
        draws = None
        if self.recipe.train.statements or self.recipe.train.class_texts:
            b, rank = len(rows), self.replica.rank
            generator = np.random.default_rng([self.recipe.train.seed, step])
            draws = generator.random((self.replica.world * b, 2))[rank * b : (rank + 1) * b]
        return [self.pairs.batch(rows, draws)]

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
        return self.objective(
            output, PairBatch(report_ids=part.report_ids, findings=part.findings, measurements=part.measurements)
        )

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
        names = [f"{i}-{reader.store.path.name}" for i, reader in enumerate(self.pairs.readers)]
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
        generator, alone = torch.Generator().manual_seed(_VALIDATION_SEED), Replica(0, 1, device)
        outputs: list[Output] = []
        embedded: list[tuple[np.ndarray, np.ndarray]] = []
        kept: list[Batch] = []
        for start in range(0, len(rows), _VALIDATION_BATCH):
            batch = to_device(self.pairs.batch(rows[start : start + _VALIDATION_BATCH]), device)
            embedded.append(_embed(self.model, batch))
            batch = with_view_noise(batch, self.model, generator, alone)
            outputs.append(replace(self.forward(batch), ecg_tokens=None, ecg_mask=None))
            kept.append(batch)
        output = outputs[0].map(lambda *parts: torch.cat(parts), *outputs[1:])
        known = {
            name: torch.cat([getattr(batch, name) for batch in kept])
            for name in ("report_ids", "findings", "measurements")
            if getattr(kept[0], name) is not None
        }
        size = min(len(rows), CANDIDATES)
        starts = list(range(0, len(rows) - size + 1, size))
        starts += [len(rows) - size] if len(rows) % size else []
        sums: Counter[str] = Counter()
        for start in starts:
            group = itemgetter(slice(start, start + size))
            part = PairBatch(**{name: group(value) for name, value in known.items()})
            losses, terms = self.objective(output.map(group), part, local=True)
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
    claim_directory(out, resume=setup.resume)
    stores = [Store.open(store) for store in setup.stores]
    text_encoder = build_text_encoder(recipe.model.text).to(replica.device)
    model = build_model(recipe.model, seed=train.seed, text_encoder=text_encoder)
    model.recipe_name = recipe.name
    start = _start(setup, model, progress)
    model = model.to(replica.device)
    if train.sync_batchnorm and replica.world > 1:
        synchronise_batchnorm(model)
    pairs = open_sources(stores, model, recipe, replica, fit=start is None, progress=progress)
    plan = BatchPlan.make(pairs.rows("train"), train, replica.rank, replica.world)
    task = PairTask(model, pairs, plan, recipe, replica, out)
    kept = Checkpoint(
        out / "checkpoints" / "last.safetensors", _identity(recipe, stores, start, replica), frozenset({"train.epochs"})
    )
    engine = Engine(
        task,
        _with_warmup(train, plan.steps_per_epoch * train.epochs, progress),
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


def _start(setup: _Setup, model: EcgTextModel, progress: Progress) -> Start | None:
    """Take the weights of ``--init``; a resumed run has its own, and need not be told again where it began."""
    told = setup.out / "run.json"
    if setup.init is None and setup.resume and told.is_file():
        known = read_sealed(told, "start the run again").get("init")
        return None if known is None else Start(**known)
    if setup.init is None:
        return None
    start, notes = take_weights(model, setup.init)
    for note in notes:
        progress.message(note)
    return start


def _announce(task: PairTask, precision: str, progress: Progress) -> None:
    plan, recipe, replica = task.plan, task.recipe, task.replica
    counts = " + ".join(str(len(rows)) for rows in task.pairs.rows("train"))
    mixed = f" ({' + '.join(map(str, plan.counts))})" if len(plan.counts) > 1 else ""
    progress.message(
        f"{recipe.name}: {counts} training pairs, batches of {plan.batch_size}{mixed} × {replica.world}, "
        f"{plan.steps_per_epoch} steps an epoch, {precision} on {replica.device}"
    )
    if recipe.train.batch_size > plan.batch_size:
        progress.message(
            f"warning: train.batch_size={recipe.train.batch_size} is more than the store has: all in one batch"
        )
    if all(len(rows) < 2 for rows in task.val_rows):
        progress.message("warning: no held-out pairs (split val): the last weights are kept, not the best")


def _with_warmup(train: schema.Train, total: int, progress: Progress) -> schema.Train:
    """The recipe's warm-up, or a tenth of a short run of ``total`` steps."""
    if train.schedule == "restarts" or train.warmup_steps <= total // 10:
        return train
    progress.message(f"warm-up over {total // 10} of {total} steps, a tenth, instead of {train.warmup_steps}")
    return train.model_copy(update={"warmup_steps": total // 10})


def _identity(recipe: Recipe, stores: list[Store], start: Start | None, replica: Replica) -> dict[str, Any]:
    """What decides what is computed; how often it is logged or saved does not belong to it."""
    content = recipe.model_dump(mode="json")
    for key in ("log_steps", "checkpoint_steps", "prefetch"):
        del content["train"][key]
    prints = [store.fingerprint for store in stores]
    content |= {"store": prints[0] if len(prints) == 1 else prints, "processes": replica.world}
    return content | ({"init": start.digest} if start else {})
