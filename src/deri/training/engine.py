"""The training loop of pre-training, fine-tuning and report writers.

A :class:`Task` says what a batch is and returns named losses; the :class:`Engine` sums them and never names one. All
randomness of a step comes from the seed and the step's number, so that a resumed run repeats it.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from deri.ahead import read_ahead
from deri.errors import DeriError, out_of_memory, some
from deri.models import EcgTextModel
from deri.models.precision import autocast, choose_precision
from deri.objectives.gather import gather
from deri.progress import SILENT, Progress
from deri.recipes import schema
from deri.store import Store
from deri.training.allocator import give_memory_back, keep_freed_memory
from deri.training.distributed import Replica, average_gradients, whole
from deri.training.interrupt import DeferredSignals
from deri.training.log import RunLog, Tally
from deri.training.recompute import cached_backward
from deri.training.schedule import learning_rate
from deri.training.state import Checkpoint, Named, State

B = TypeVar("B")


@dataclass(frozen=True)
class Validation:
    """What the held-out records say: the weights of the lowest ``criterion`` are kept; ``values`` are logged."""

    criterion: float
    values: dict[str, float]


@dataclass(frozen=True)
class EpochResult:
    """The end of an epoch, numbered from 0 (-1: before the first).

    ``train_loss`` is the mean of the epoch; ``train`` the last line of the log.
    """

    epoch: int
    step: int
    train_loss: float | None
    train: Mapping[str, float]
    validation: Validation | None
    best: bool


class Task(ABC, Generic[B]):
    """What is trained. A step reads one or several parts of type ``B``, whose gradients add up.

    Attributes:
        store: of the records that it is trained on.
        model: the modules that :meth:`forward` calls.
        trained: parameters that the optimiser changes, by name.
        steps_per_epoch: steps in an epoch.
        logs_epochs: whether the last step of an epoch is logged, besides every ``log_steps``-th and the last one.
        advice: what to do where the loss is not finite.
        batch_option: what to lower where memory does not suffice.
        sharded: whether each process holds a part of the weights: then all of them validate and collect what is kept.
    """

    store: Store
    model: EcgTextModel
    trained: Named
    steps_per_epoch: int
    logs_epochs: bool = False
    advice: str = "lower the learning rate"
    batch_option: str = "the batch size"
    sharded: bool = False

    @abstractmethod
    def seed(self, step: int) -> int | None:
        """Seed of torch's generator in 0-based ``step``; None: it goes on from the step before."""

    @abstractmethod
    def step_rows(self, step: int) -> list[np.ndarray]:
        """Rows that a step trains on, by part; of all processes."""

    def records(self, rows: np.ndarray) -> pd.DataFrame:
        """Subject, study and file of ``rows``."""
        return self.store.index.iloc[rows][["subject_id", "study_id", "file"]]

    @abstractmethod
    def read(self, step: int) -> Sequence[B]:
        """The parts of a step; called in a thread, ahead of the loop."""

    @abstractmethod
    def prepare(self, part: B, step: int) -> B:
        """``part`` on the device, with what is drawn for the step."""

    def pieces(self, part: B) -> Sequence[B]:
        """What is embedded at a time, see :func:`deri.training.recompute.cached_backward`; ``part`` at once."""
        return [part]

    @abstractmethod
    def forward(self, part: B) -> Any:
        """The model's output, computed in the engine's precision."""

    def suspects(self, part: B, output: Any) -> Tensor | None:
        """Rows of a part that may be why a loss is not finite, int8: 2 if read so, plus 1 if embedded so."""
        return None

    @abstractmethod
    def losses(self, output: Any, part: B) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Named losses to be summed, and terms for the log; computed in fp32."""

    @abstractmethod
    def amounts(self, part: B) -> dict[str, int]:
        """How much a part is, by unit; the first unit weighs the losses of steps."""

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """What a checkpoint holds besides the optimiser's moments, by name."""

    @abstractmethod
    def train_mode(self, on: bool) -> None:
        """Set modules to train or eval mode."""

    @abstractmethod
    def validate(self) -> Validation | None:
        """Evaluate the held-out records, in eval mode; None where there are none."""

    @abstractmethod
    def epoch_done(self, result: EpochResult) -> None:
        """Keep the weights where they are the best so far."""

    def logged(self, tally: Tally) -> dict[str, float]:
        """What a line of the log says of the steps since the line before."""
        return {"loss": tally.mean}


class Engine(Generic[B]):
    """Fits a task.

    Args:
        task: what is trained.
        config: epochs, schedule, clipping, precision, and how often is logged and saved.
        optimizer: made by :func:`deri.training.optimiser.adamw`.
        replica: this process among all.
        checkpoint: where the state is kept; None: nowhere.
        patience: epochs without a better validation before training stops; None: it never stops early.
        progress: receives (steps done, steps in all).
    """

    def __init__(
        self,
        task: Task[B],
        config: schema.Train,
        optimizer: torch.optim.AdamW,
        replica: Replica,
        *,
        checkpoint: Checkpoint | None = None,
        patience: int | None = None,
        progress: Progress = SILENT,
    ) -> None:
        self.task, self.config, self.optimizer, self.replica = task, config, optimizer, replica
        self.checkpoint, self.patience, self.progress = checkpoint, patience, progress
        self.precision = choose_precision(config.precision, replica.device)
        if config.precision == "auto" and replica.world > 1 and replica.most(int(self.precision == "fp32")):
            self.precision = "fp32"  # for all, where one has no fast bf16
        self.scaler = torch.amp.GradScaler(replica.device.type, enabled=self.precision == "fp16")
        self.state = State()
        self.log: RunLog | None = None
        self.tally, self.epoch = Tally(), Tally()
        self.line: dict[str, float] = {}
        self._unchecked: list[tuple[int, Tensor, list[Tensor]]] = []
        self._keeps_memory = False

    @property
    def total(self) -> int:
        """Steps in all."""
        return self.task.steps_per_epoch * self.config.epochs

    def resume(self) -> bool:
        """Restore the state from the checkpoint, if there is one."""
        kept = self.checkpoint
        here = kept is not None and kept.found is not None
        if here != bool(self.replica.most(int(here))):
            raise DeriError(f"process {self.replica.rank} finds no checkpoint: --out must be one folder for all nodes")
        if here and kept is not None:
            where = self.task.weights(), self.task.trained, self.optimizer, self.progress
            self.state = self.replica.first(lambda: kept.load(*where))
        if self.state.step != self.replica.most(self.state.step):
            raise DeriError(f"process {self.replica.rank} has an older checkpoint: --out must be one folder for all")
        if self.state.scaler:
            self.scaler.load_state_dict(self.state.scaler)
        return here

    def fit(self) -> None:
        """Train from where the state stands to the last step, or until validation has not improved for long.

        Raises:
            DeriError: the disk has no room for checkpoints, memory does not suffice, or a loss is not finite.
        """
        if self.checkpoint is not None and self.replica.main:
            self.checkpoint.require_room(self.task.weights(), self.task.trained)
        # Callers find torch's generators as they left them.
        with torch.random.fork_rng(devices=[self.replica.device] if self.replica.device.type == "cuda" else []):
            self._fit()

    def _fit(self) -> None:
        state = self.state
        steps = range(state.step, self.total)
        batches = read_ahead(map(self.task.read, steps), self.config.prefetch)
        self.task.train_mode(True)
        self.tally, self.epoch = Tally(), Tally(weighted=state.epoch_loss, weight=state.epoch_weight)
        self._unchecked = []
        try:
            with DeferredSignals() as signals:
                self._steps(steps, batches, signals)
        finally:
            if self._keeps_memory:
                give_memory_back()
        self.task.train_mode(False)

    def _steps(self, steps: range, batches: Iterator[Sequence[B]], signals: DeferredSignals) -> None:
        state, config = self.state, self.config
        for step, parts in zip(steps, batches, strict=True):
            self.replica.beat()
            lr = self._step_in_memory(step, parts)
            if step == steps[0] and self.replica.device.type == "cpu":  # the first step tells what steps need
                self._keeps_memory = keep_freed_memory()
            state.step = step + 1
            epoch, end = step // self.task.steps_per_epoch, state.step % self.task.steps_per_epoch == 0
            if state.step % config.log_steps == 0 or state.step == self.total or (end and self.task.logs_epochs):
                self._log_steps(epoch, lr)
            if end:
                self._require_finite()  # by all processes: they name its records together
            if end and (self.replica.main or self.task.sharded):
                self.end_epoch(epoch)
            # All processes stop at the same step, whichever received the signal.
            if stop := self.replica.most(signals.pending or 0):
                signals.pending = stop
            if end or state.step % config.checkpoint_steps == 0 or stop:
                self._save()
            self.progress.update(state.step, self.total)
            if stop or (end and self._stops(epoch)):
                break

    def end_epoch(self, epoch: int) -> None:
        """Validate, and tell the task whether the weights are the best so far."""
        state = self.state
        self._require_finite(keeps=True)
        self.task.train_mode(False)
        validation = self.task.validate()
        if validation is not None and not math.isfinite(validation.criterion):
            raise DeriError(
                f"the loss of the held-out records is {validation.criterion} after step {state.step}: "
                f"{self.task.advice}; {self._way_on()}"
            )
        best = validation is None or state.best_loss is None or validation.criterion < state.best_loss
        if validation is not None and self.log:
            self.log.write("val", state.step, epoch, validation.values)
        train_loss = self.epoch.mean if self.epoch.weight else None
        if best:
            state.best_loss = validation.criterion if validation else None
            state.best_epoch = epoch
        # The weights are kept before the checkpoint: a kill in between repeats the validation and keeps them again.
        self.task.epoch_done(EpochResult(epoch, state.step, train_loss, self.line, validation, best))
        self.task.train_mode(True)
        self.tally, self.epoch = Tally(), Tally()

    def _step_in_memory(self, step: int, parts: Sequence[B]) -> float:
        try:
            return self._step(step, parts)
        except Exception as error:
            if not out_of_memory(error):
                raise
            largest = max(len(rows) for rows in self.task.step_rows(step))
            raise DeriError(
                f"out of memory on {self.replica.device} with batches of {largest} records: lower "
                f"{self.task.batch_option}; {self._way_on()}"
            ) from error

    def _step(self, step: int, parts: Sequence[B]) -> float:
        """One optimisation step; returns its learning rate."""
        lr = learning_rate(step, self.total, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = group["scale"] * lr
        seed = self.task.seed(step)
        if seed is not None:
            torch.manual_seed(seed)
        amounts: Counter[str] = Counter()
        value = torch.zeros((), dtype=torch.float64, device=self.replica.device)
        suspects: list[Tensor] = []
        for part in parts:
            amounts.update(self.task.amounts(part))
            part = self.task.prepare(part, step)
            loss, terms, output = self._backward(part, seed)
            value = value + loss.double()
            if (doubts := self.task.suspects(part, output)) is not None:
                suspects.append(doubts)
        parameters = [parameter for _, parameter in self.task.trained]
        average_gradients(parameters, self.replica.world)
        if self.config.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            norm = whole(nn.utils.clip_grad_norm_(parameters, self.config.clip_grad))
            if not self.scaler.is_enabled():  # which takes no step where a gradient overflows
                self._unchecked.append((step, norm, suspects))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self._unchecked.append((step, value, suspects))
        self.tally.add(value, terms, amounts)
        self.epoch.add(value, terms, amounts)
        return lr

    def _backward(self, part: B, seed: int | None) -> tuple[Tensor, Mapping[str, Tensor], Any]:
        """Add the gradients of a part; returns its loss, terms for the log, and the output."""
        told: list[tuple[Tensor, Mapping[str, Tensor]]] = []

        def embed(piece: B) -> Any:
            with autocast(self.precision, self.replica.device):
                return self.task.forward(piece)

        def embed_again(piece: B) -> Any:
            if seed is not None:
                torch.manual_seed(seed)
            return embed(piece)

        def scaled(output: Any) -> Tensor:
            losses, terms = self.task.losses(output, part)  # in fp32: similarities in bf16 spoil a sharp softmax
            loss = torch.stack(list(losses.values())).sum()
            told.append((loss.detach(), terms))
            return self.scaler.scale(loss)

        pieces = self.task.pieces(part)
        if len(pieces) > 1:
            output = cached_backward(pieces, embed_again, scaled, self.task.model)
        else:
            output = embed(part)
            scaled(output).backward()  # type: ignore[no-untyped-call]
        return *told[0], output

    def _require_finite(self, *, keeps: bool = False) -> None:
        """Stop where the loss or the gradient of a step was not finite or, before they are kept, the weights are not.

        Steps are checked together, so that a GPU is not waited for in each.
        """
        unchecked, self._unchecked = self._unchecked, []
        for step, value, suspects in unchecked:
            if not math.isfinite(value):
                raise DeriError(
                    f"the loss or its gradient is {float(value)} at step {step + 1}: {self.task.advice}, or look at "
                    f"its records: {self._names(step, suspects)}; {self._way_on()}"
                )
        if keeps and not all(bool(whole(value).isfinite().all()) for value in self.task.weights().values()):
            raise DeriError(
                f"weights are not finite after step {self.state.step}: {self.task.advice}, or look at the step's "
                f"records: {self._names(max(0, self.state.step - 1), [])}; {self._way_on()}"
            )

    def _names(self, step: int, suspects: list[Tensor]) -> str:
        """The records of a step as ``subject/study (file)``; those alone that began it, where that is known."""
        rows = np.concatenate(self.task.step_rows(step))
        most = 0
        if suspects:
            doubts = gather(torch.cat(suspects), self.replica.sizes(len(rows))).cpu().numpy()
            most = doubts.max()
            rows = rows[doubts == most]
        table = self.task.records(rows).itertuples(index=False)
        names = [f"{subject}/{study} ({file})" for subject, study, file in table]
        return some(names, 16) + (" (read as values that are not finite)" if most & 2 else "")

    def _way_on(self) -> str:
        if self.checkpoint is None:
            return "nothing was kept"
        if self.checkpoint.found is None:
            return "there is no checkpoint yet"
        return f"--resume continues from the last good checkpoint, {self.checkpoint.found}"

    def _log_steps(self, epoch: int, lr: float) -> None:
        self._require_finite()
        self.line = {**self.task.logged(self.tally), "lr": lr, **self.tally.rates()}
        if self.log:
            self.log.write("train", self.state.step, epoch, self.line)
        self.tally = Tally()

    def _save(self) -> None:
        self._require_finite(keeps=True)
        main = self.replica.main
        if self.checkpoint is not None and (main or self.task.sharded):
            self.state.epoch_loss, self.state.epoch_weight = float(self.epoch.weighted), self.epoch.weight
            self.state.scaler = dict(self.scaler.state_dict()) if self.scaler.is_enabled() else None
            self.checkpoint.save(self.task.weights(), self.task.trained, self.optimizer, self.state, writes=main)
        self.replica.barrier()

    def _stops(self, epoch: int) -> bool:
        best = self.state.best_epoch
        return self.patience is not None and best is not None and epoch - best >= self.patience


def derived_seed(*numbers: int) -> int:
    """A seed that depends on all ``numbers``, of 56 bits."""
    digest = hashlib.blake2b(" ".join(map(str, numbers)).encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")
