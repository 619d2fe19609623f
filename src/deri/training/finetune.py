"""Fine-tuning: the encoder, or its last blocks, trained further on the labels of a task.

The linear head starts as the corrected probe of the frozen encoder (LP-FT, Kumar et al. 2022), so that the first steps
do not spoil the features, and the probe itself is epoch 0: validation keeps it where training does not help.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deri.errors import DeriError
from deri.evaluation.features import Features, embed_windows
from deri.evaluation.metrics import aurocs, best_thresholds
from deri.evaluation.options import EvalOptions
from deri.evaluation.probe import train_head
from deri.evaluation.result import evaluate, provenance, scored_records
from deri.evaluation.task import load_task
from deri.files import atomic_path, write_json
from deri.models import EcgTextModel
from deri.models.build import model_card
from deri.models.calibration import prevalence_of
from deri.models.device import to_device
from deri.models.directory import HEAD
from deri.models.head import Head
from deri.progress import SILENT, Progress
from deri.recipes import schema
from deri.store import Store
from deri.training.distributed import Replica
from deri.training.engine import Engine, EpochResult, Task, Validation
from deri.training.optimiser import adamw
from deri.training.state import Named, claim_directory


@dataclass(frozen=True)
class FinetuneConfig:
    """How to fine-tune. ``blocks`` None trains all of the ECG side; k its last k backbone blocks and what follows."""

    blocks: int | None = None
    epochs: int = 20
    batch_size: int = 64
    lr: float = 5e-4
    layer_decay: float = 0.75
    weight_decay: float = 1e-2
    patience: int = 5
    seed: int = 42


def finetune(
    model: EcgTextModel,
    store: Store,
    task: str,
    out: str | Path,
    *,
    model_name: str,
    config: FinetuneConfig | None = None,
    draws: int = 1000,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Fine-tune ``model`` (in place) on a task; write ``out`` and return the result on test.

    ``out`` gets ``result.json``, ``history.json`` and ``model/``: a model directory with the head in
    ``head.safetensors`` and ``classes.json``, which :func:`deri.models.load_model` gives as ``head``. The weights are
    those of the epoch of the highest macro AUROC on validation (lowest loss where no class has one); F1 thresholds
    come from validation too. The text side is not trained, but shares its projection with DERI's ECG side: zero-shot
    with a fine-tuned model is another model's.

    Args:
        model: to start from; layers that are not trained stay in eval mode, batch-norm statistics included.
        store: with the task and all three splits.
        task: its name.
        out: a new or empty directory.
        model_name: for the result.
        config: how to train.
        draws: bootstrap samples, 0 for no intervals.
        progress: receives messages, and (steps done, steps in all).
    """
    config = config or FinetuneConfig()
    out = Path(out)
    claim_directory(out)
    run = FinetuneTask(model, store, task, config, progress)
    warmup = run.steps_per_epoch * config.epochs // 10
    schedule = schema.Train(
        epochs=config.epochs, lr=config.lr, warmup_steps=warmup, min_lr=0.0, log_steps=10**9, precision="fp32"
    )
    replica = Replica(0, 1, model.device)
    engine = Engine(run, schedule, run.optimizer(), replica, patience=config.patience, progress=progress)
    engine.end_epoch(-1)
    engine.fit()
    run.restore_best()
    thresholds = best_thresholds(run.val_labels, run.val)
    test_rows = store.task_rows(task, "test")
    labels = store.labels(task, test_rows)[1]
    subjects = store.index["subject_id"].to_numpy().astype(str)[test_rows]
    options = EvalOptions(seed=config.seed, draws=draws)
    scored = evaluate(
        run.predict(test_rows)[None],
        labels,
        subjects,
        options,
        classes=run.classes,
        thresholds=[thresholds],
        probabilities=True,
    )
    result = {
        **scored_records(task, model_name, subjects, options, protocol="finetune"),
        "n_train": run.n_train,
        "n_val": len(run.val_rows),
        **scored.to_json(),
        "epoch": run.best_epoch,
        "finetune": asdict(config) | {"trained_parameters": sum(p.numel() for _, p in run.trained)},
        **provenance(model, store),
        "notes": [
            f"epoch {run.best_epoch} (0 is the probe) and thresholds of F1 were chosen on the {len(run.val_rows)} "
            "validation records",
            *scored.notes(),
        ],
    }
    model.head = Head(
        *(value.detach().cpu().numpy() for value in (run.head.weight, run.head.bias)),
        *(task, run.classes, thresholds, prevalence_of(run.labels).tolist()),
    )
    card = model_card(model) + f"\nFine-tuned on task `{task}`; its linear head is `{HEAD.weights}`.\n"
    with atomic_path(out) as folder:
        model.save_pretrained(folder / "model", card=card)
        write_json(folder / "history.json", run.history)
        write_json(folder / "result.json", result)
    return result


@dataclass
class _Batch:
    """Windows of recordings and the labels of their recordings."""

    ecg: Tensor
    valid: Tensor | None
    labels: Tensor


class FinetuneTask(Task[_Batch]):
    """Labels of a task by a linear head on the embedding of an ECG; the best weights are kept in memory."""

    logs_epochs = True
    advice = "lower --lr"
    batch_option = "--batch-size"

    def __init__(
        self, model: EcgTextModel, store: Store, task: str, config: FinetuneConfig, progress: Progress = SILENT
    ) -> None:
        self.model, self.store, self.config, self.progress = model, store, config, progress
        self.layers = _layers(model, config.blocks)
        self._settle_batchnorm(store.task_rows(task, "train"))
        data = load_task(Features(model, store), task)
        self.classes = data.classes
        self.rows, owners = store.windows_of(store.task_rows(task, "train"))
        self.labels, self.n_train = data.train.labels[owners], len(data.train.labels)
        self.val_rows, self.val_labels = store.task_rows(task, "val"), data.val.labels
        if self.n_train < 2:
            raise DeriError(f"task {task}: {store.path} has {self.n_train} training record; fine-tuning needs 2")
        self.head = _linear(train_head(data, task)).to(model.device)
        self.trained = self._unfreeze()
        self.steps_per_epoch = len(_batches(np.arange(len(self.rows)), config.batch_size))
        self.val = self._new_val = np.zeros((0, len(self.classes)))
        self.best_epoch = 0
        self.history: list[dict[str, Any]] = []
        self._best: dict[str, Tensor] = {}

    def optimizer(self) -> torch.optim.AdamW:
        """The learning rate falls by ``layer_decay`` per layer from the head towards the input."""
        scale = lambda name: self.config.layer_decay ** self._depths[name]  # noqa: E731
        return adamw(self.trained, self.config.lr, self.config.weight_decay, scale=scale)

    def seed(self, step: int) -> int | None:
        """One for every epoch."""
        epoch, i = divmod(step, self.steps_per_epoch)
        return None if i else self.config.seed * 100_003 + epoch

    def step_rows(self, step: int) -> list[np.ndarray]:
        """One batch of windows."""
        return [self.rows[self._chosen(step)]]

    def read(self, step: int) -> list[_Batch]:
        """One batch of windows."""
        chosen = self._chosen(step)
        input = self.model.preprocess.of_store(self.store, self.rows[chosen])
        return [_Batch(*input, torch.from_numpy(self.labels[chosen]).float())]

    def prepare(self, part: _Batch, step: int) -> _Batch:
        """Nothing is drawn."""
        return to_device(part, self.model.device)

    def forward(self, part: _Batch) -> Tensor:
        """Logits (B, classes)."""
        logits: Tensor = self.head(self.model.ecg_embedding(part.ecg, part.valid).float())
        return logits

    def losses(self, output: Tensor, part: _Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Binary cross-entropy."""
        return {"cross_entropy": F.binary_cross_entropy_with_logits(output, part.labels)}, {}

    def amounts(self, part: _Batch) -> dict[str, int]:
        """Windows."""
        return {"samples": len(part.ecg)}

    def weights(self) -> dict[str, Tensor]:
        """Without the text encoder, which stays as it is."""
        own = {name: v for name, v in self.model.state_dict().items() if not name.startswith("text_encoder.")}
        return own | {f"head.{name}": value for name, value in self.head.state_dict().items()}

    def train_mode(self, on: bool) -> None:
        """Of what is trained; the rest keeps its batch-norm statistics and has no dropout."""
        self.model.eval()
        for layer in self.layers if on else ():
            for module in layer:
                module.train()

    def validate(self) -> Validation:
        """Macro AUROC on the val split; without one, the cross-entropy."""
        self._new_val = self.predict(self.val_rows)
        value, macro = _quality(self._new_val, self.val_labels)
        return Validation(-value, {} if macro is None else {"macro_auroc": macro})

    def epoch_done(self, result: EpochResult) -> None:
        """Count the epoch, 0 being the probe; keep the best weights."""
        assert result.validation is not None
        epoch, loss = result.epoch + 1, result.train_loss
        macro = result.validation.values.get("macro_auroc")
        self.history.append({"epoch": epoch, "train_loss": loss, "val_macro_auroc": macro})
        shown = "none" if macro is None else f"{macro:.4f}"
        more = "" if loss is None else f", loss {loss:.4f}"
        self.progress.message(f"epoch {epoch}: validation macro AUROC {shown}{more}")
        if result.best:
            self.best_epoch, self.val = epoch, self._new_val
            self._best = {name: value.detach().clone() for name, value in self.weights().items()}

    def restore_best(self) -> None:
        """Give model and head the weights of the best epoch."""
        with torch.no_grad():
            for name, value in self.weights().items():
                value.copy_(self._best[name])

    @torch.inference_mode()
    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes) float64 of the recordings of ``rows``, everything in eval mode.

        Those of a recording with several windows come from the mean of their logits, which is the head on the mean of
        their embeddings.
        """
        logits = torch.zeros(len(rows), len(self.classes), dtype=torch.float64)
        counts = torch.zeros(len(rows), 1, dtype=torch.float64)
        for owners, embedding in embed_windows(self.model, self.store, rows):
            owner = torch.from_numpy(owners)
            logits.index_add_(0, owner, self.head(embedding).double().cpu())
            counts.index_add_(0, owner, torch.ones(len(owner), 1, dtype=torch.float64))
        return (logits / counts).sigmoid().numpy()

    def _settle_batchnorm(self, rows: np.ndarray, batches: int = 20) -> None:
        """Measure the statistics of batch norms that have never seen a batch, as those of a random encoder.

        Its features in eval mode would else differ from those in train mode by orders of magnitude, and a head fitted
        to the first would start from a huge loss.
        """
        inside = [m for layer in self.layers for module in layer for m in module.modules()]
        fresh = [m for m in inside if isinstance(m, nn.BatchNorm1d) and int(m.num_batches_tracked or 0) == 0]
        rows = np.random.default_rng(self.config.seed).permutation(rows)
        parts = [part for part in _batches(rows, self.config.batch_size) if len(part) > 1][:batches]
        if not fresh or not parts:
            return
        self.model.eval()
        momentum = [m.momentum for m in fresh]
        for m in fresh:
            m.train()
            m.momentum = None  # the plain mean over batches
        with torch.no_grad():
            for part in parts:
                self.model.ecg_embedding(
                    *to_device(self.model.preprocess.of_store(self.store, part), self.model.device)
                )
        for m, value in zip(fresh, momentum, strict=True):
            m.momentum = value

    def _chosen(self, step: int) -> np.ndarray:
        epoch, i = divmod(step, self.steps_per_epoch)
        return _epoch_batches(len(self.rows), self.config.batch_size, self.config.seed, epoch)[i]

    def _unfreeze(self) -> Named:
        """What is trained, from the head to the input; all else is frozen."""
        self.model.requires_grad_(False)
        names = {p: name for name, p in [*self.model.named_parameters(), *self.head.named_parameters("head")]}
        trained: Named = []
        self._depths: dict[str, int] = {}
        layers: list[list[nn.Module]] = [*self.layers, [self.head]]
        for depth, layer in enumerate(reversed(layers)):
            parameters = [p for module in layer for p in module.parameters()]
            if self.config.blocks is None and depth == len(self.layers):  # positions belong to no module of the stem
                parameters += self.model.backbone.parameters(recurse=False)
            for parameter in parameters:
                parameter.requires_grad_(True)
                trained.append((names[parameter], parameter))
                self._depths[names[parameter]] = depth
        return trained


def _layers(model: EcgTextModel, blocks: int | None) -> list[list[nn.Module]]:
    """The modules of each depth, from input to output: the stem, every block, and all behind the backbone."""
    backbone, all_blocks = model.backbone, list(model.backbone.blocks)
    if blocks is not None and not 0 <= blocks <= len(all_blocks):
        raise DeriError(f"--blocks {blocks}: the backbone has {len(all_blocks)} blocks; give 0 to that, or all")
    first, last = backbone.ends()
    after = [module for name, module in model.named_children() if name in _AFTER] + last
    kept = all_blocks if blocks is None else all_blocks[len(all_blocks) - blocks :]
    return [*([first] if blocks is None else []), *([block] for block in kept), after]


# What the inference embedding of DERI and MERL runs through behind the backbone.
_AFTER = ("token_conv", "token_attention", "ecg_to_text", "text_projection", "attention_pool", "ecg_projection")


def _batches(order: np.ndarray, size: int) -> list[np.ndarray]:
    """Batches of ``size``; a last one of a single record joins the one before, as batch norm has no use for it."""
    parts = [order[i : i + size] for i in range(0, len(order), size)]
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [np.concatenate(parts[-2:])]
    return parts


@lru_cache(2)  # the next epoch is read ahead
def _epoch_batches(n: int, size: int, seed: int, epoch: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return _batches([rng.permutation(n) for _ in range(epoch + 1)][-1], size)


def _linear(head: Head) -> nn.Linear:
    """The head as a layer to train."""
    layer = nn.Linear(head.weight.shape[1], head.weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(head.weight))
        layer.bias.copy_(torch.from_numpy(head.bias))
    return layer


def _quality(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float | None]:
    """What early stopping compares, and the macro AUROC; without one, minus the cross-entropy."""
    if not np.isfinite(probabilities).all():
        raise DeriError("fine-tuning: the model's output is not finite; lower --lr")
    values = aurocs(labels, probabilities)
    if np.isfinite(values).any():
        macro = float(np.nanmean(values))
        return macro, macro
    p = np.clip(probabilities, 1e-12, 1 - 1e-12)
    return float((labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean()), None
