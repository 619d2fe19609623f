"""Fine-tuning: the encoder, or its last blocks, trained further on the labels of a task.

The linear head starts as the corrected probe of the frozen encoder (LP-FT, Kumar et al. 2022), so that the first steps
do not spoil the features, and the probe itself is epoch 0: validation keeps it where training does not help.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deri.errors import DeriError
from deri.evaluation.classifier import HEAD_FILE, save_head
from deri.evaluation.features import Features
from deri.evaluation.metrics import aurocs, best_thresholds
from deri.evaluation.options import MIN_POS, EvalOptions
from deri.evaluation.probe import fit_corrected
from deri.evaluation.result import evaluate, provenance, scored_records
from deri.evaluation.task import TaskData, load_task
from deri.files import write_json
from deri.models import EcgTextModel
from deri.models.directory import model_card
from deri.models.resnet import ResNet1d
from deri.recipes import schema
from deri.store import Store
from deri.training.batches import prefetch
from deri.training.schedule import learning_rate

Say = Callable[[str], None]
Show = Callable[[int, int], None]


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
    min_pos: int = MIN_POS,
    say: Say = print,
    show: Show | None = None,
) -> dict[str, Any]:
    """Fine-tune ``model`` (in place) on a task; write ``out`` and return the result on test.

    ``out`` gets ``result.json``, ``history.json`` and ``model/``: a model directory with the head in
    ``head.safetensors`` and ``classes.json``, read by :func:`deri.evaluation.classifier.load_classifier`. The weights
    are those of the epoch of the highest macro AUROC on validation (lowest loss where no class has one); F1 thresholds
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
        min_pos: classes with fewer test positives are marked.
        say: receives lines for people.
        show: receives (steps done, steps in all).
    """
    config = config or FinetuneConfig()
    out = Path(out)
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise DeriError(f"{out} exists and is not empty; name another --out")
    run = _Run(model, store, task, config, _layers(model, config.blocks))
    history = run.fit(say, show)
    thresholds = best_thresholds(run.val_labels, run.val)
    test_rows = store.task_rows(task, "test")
    labels = store.labels(task, test_rows)[1]
    subjects = store.index["subject_id"].to_numpy().astype(str)[test_rows]
    scored = evaluate(
        run.predict(test_rows)[None],
        labels,
        subjects,
        EvalOptions(seed=config.seed, draws=draws, min_pos=min_pos),
        classes=run.classes,
        thresholds=[thresholds],
        probabilities=True,
    )
    result = {
        **scored_records(task, model_name, "test", subjects, "finetune", config.seed),
        "n_train": run.n_train,
        "n_val": len(run.val_rows),
        **scored.to_json(),
        "epoch": run.best_epoch,
        "finetune": asdict(config) | {"trained_parameters": run.trained},
        **provenance(model, store),
        "notes": [
            f"epoch {run.best_epoch} (0 is the probe) and thresholds of F1 were chosen on the {len(run.val_rows)} "
            "validation records",
            *scored.notes(),
        ],
    }
    card = model_card(model) + f"\nFine-tuned on task `{task}`; its linear head is `{HEAD_FILE}`.\n"
    model.save_pretrained(out / "model", card=card)
    save_head(run.head, out / "model", task, run.classes, thresholds)
    write_json(out / "history.json", history)
    write_json(out / "result.json", result)
    return result


class _Run:
    """What one fine-tuning needs, and its loop."""

    def __init__(
        self, model: EcgTextModel, store: Store, task: str, config: FinetuneConfig, layers: list[_Layer]
    ) -> None:
        self.model, self.store, self.task, self.config, self.layers = model, store, task, config, layers
        self._valid = store.index["valid_samples"].to_numpy(np.int64)
        self._settle_batchnorm(store.task_rows(task, "train"))
        data = load_task(Features(model, store), task)
        self.classes = data.classes
        self.rows, owners = store.windows_of(store.task_rows(task, "train"))
        self.labels, self.n_train = data.train.labels[owners], len(data.train.labels)
        self.val_rows, self.val_labels = store.task_rows(task, "val"), data.val.labels
        if self.n_train < 2:
            raise DeriError(f"task {task}: {store.path} has {self.n_train} training record; fine-tuning needs 2")
        self.head = _probe_head(data).to(model.device)
        self.optimizer, self.trained = self._optimizer()
        self.val = np.zeros((0, len(self.classes)))
        self.best_epoch = 0

    def fit(self, say: Say, show: Show | None) -> list[dict[str, Any]]:
        """Train, keep the best epoch by validation, stop after ``patience`` epochs without a better one."""
        config = self.config
        rng = np.random.default_rng(config.seed)
        schedule = schema.Train(epochs=config.epochs, lr=config.lr, warmup_steps=10**9, min_lr=0.0)
        per_epoch = len(_batches(np.arange(len(self.rows)), config.batch_size))
        total = per_epoch * config.epochs
        best_value, best_state, history = float("-inf"), None, []
        for epoch in range(config.epochs + 1):
            loss = None
            if epoch:
                loss = self._epoch(epoch - 1, per_epoch, total, rng, schedule, show)
            probabilities = self.predict(self.val_rows)
            value, macro = _quality(probabilities, self.val_labels)
            history.append({"epoch": epoch, "train_loss": loss, "val_macro_auroc": macro})
            shown = "none" if macro is None else f"{macro:.4f}"
            say(f"epoch {epoch}: validation macro AUROC {shown}" + ("" if loss is None else f", loss {loss:.4f}"))
            if value > best_value:
                best_value, self.best_epoch, self.val = value, epoch, probabilities
                best_state = self._state()
            elif epoch - self.best_epoch >= config.patience:
                break
        assert best_state is not None
        self._restore(best_state)
        return history

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes) float64 of the recordings of ``rows``, everything in eval mode.

        Those of a recording with several windows come from the mean of their logits, which is the head on the mean of
        their embeddings.
        """
        self.model.eval()
        every, owners = self.store.windows_of(rows)
        logits = torch.zeros(len(rows), len(self.classes), dtype=torch.float64)
        with torch.inference_mode():
            for start in range(0, len(every), 128):
                ecg, valid = self._read(every[start : start + 128])
                owner = torch.from_numpy(owners[start : start + 128])
                logits.index_add_(0, owner, self._logits(ecg, valid).double().cpu())
        counts = np.bincount(owners, minlength=len(rows))[:, None]
        return (logits / torch.from_numpy(counts)).sigmoid().numpy()

    def _settle_batchnorm(self, rows: np.ndarray, batches: int = 20) -> None:
        """Measure the statistics of batch norms that have never seen a batch, as those of a random encoder.

        Its features in eval mode would else differ from those in train mode by orders of magnitude, and a head fitted
        to the first would start from a huge loss.
        """
        inside = [m for layer in self.layers for module in layer.modules for m in module.modules()]
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
                ecg, valid = self._read(part)
                device = self.model.device
                self.model.ecg_embedding(ecg.to(device), None if valid is None else valid.to(device))
        for m, value in zip(fresh, momentum, strict=True):
            m.momentum = value

    def _epoch(
        self,
        epoch: int,
        per_epoch: int,
        total: int,
        rng: np.random.Generator,
        schedule: schema.Train,
        show: Show | None,
    ) -> float:
        _train_mode(self.model, self.layers)
        batches = _batches(rng.permutation(len(self.rows)), self.config.batch_size)
        losses = 0.0
        read = prefetch(lambda i: self._read(self.rows[batches[i]]), range(per_epoch), 2)
        with _seeded(self.config.seed * 100_003 + epoch, self.model.device):
            for i, (ecg, valid) in enumerate(read):
                step = epoch * per_epoch + i
                for group in self.optimizer.param_groups:
                    group["lr"] = group["scale"] * learning_rate(step, total, schedule)
                target = torch.from_numpy(self.labels[batches[i]]).to(self.model.device, torch.float32)
                loss = F.binary_cross_entropy_with_logits(self._logits(ecg, valid), target)
                if not torch.isfinite(loss):
                    raise DeriError(f"fine-tuning: the loss is {float(loss)} in epoch {epoch + 1}; lower --lr")
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], 1.0)
                self.optimizer.step()
                losses += float(loss.detach()) * len(target)
                if show:
                    show(step + 1, total)
        return losses / len(self.rows)

    def _read(self, rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
        signals, mask = self.store.signals(rows), self.store.lead_mask(rows)
        return self.model.preprocess(signals, self.store.fs, self._valid[rows], mask)

    def _logits(self, ecg: Tensor, valid: Tensor | None) -> Tensor:
        device = self.model.device
        embedding = self.model.ecg_embedding(ecg.to(device), None if valid is None else valid.to(device))
        logits: Tensor = self.head(embedding.float())
        return logits

    def _optimizer(self) -> tuple[torch.optim.AdamW, int]:
        """AdamW with a learning rate that falls by ``layer_decay`` per layer from the head towards the input."""
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        params: list[dict[str, Any]] = []
        for depth, layer in enumerate([*self.layers, _Layer([self.head], [])][::-1]):
            for parameter in layer.parameters():
                parameter.requires_grad_(True)
                decay = self.config.weight_decay if parameter.dim() >= 2 else 0.0
                scale = self.config.layer_decay**depth
                params.append({"params": [parameter], "weight_decay": decay, "scale": scale})
        return torch.optim.AdamW(params, lr=self.config.lr), sum(p["params"][0].numel() for p in params)

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        own = {k: v.detach().clone() for k, v in self.model.state_dict().items() if not k.startswith("text_encoder.")}
        return own, {k: v.detach().clone() for k, v in self.head.state_dict().items()}

    def _restore(self, state: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
        self.model.load_state_dict(state[0], strict=False)
        self.head.load_state_dict(state[1])


def backbone_blocks(model: EcgTextModel) -> list[nn.Module]:
    """The blocks of the backbone, from input to output."""
    backbone = model.backbone
    if isinstance(backbone, ResNet1d):
        return [block for stage in range(1, 5) for block in getattr(backbone, f"layer{stage}")]
    return list(backbone.blocks)


@dataclass(frozen=True)
class _Layer:
    """Modules of one depth that are trained, and parameters that belong to no module of theirs."""

    modules: list[nn.Module]
    extra: list[nn.Parameter]

    def parameters(self) -> list[nn.Parameter]:
        return [*(p for module in self.modules for p in module.parameters()), *self.extra]


def _layers(model: EcgTextModel, blocks: int | None) -> list[_Layer]:
    """What is trained, from input to output: the stem, a layer for every block, and all behind the backbone."""
    backbone, all_blocks = model.backbone, backbone_blocks(model)
    if blocks is not None and not 0 <= blocks <= len(all_blocks):
        raise DeriError(f"--blocks {blocks}: the backbone has {len(all_blocks)} blocks; give 0 to that, or all")
    last = {"norm"}  # of a ViT, behind its blocks
    after = [module for name, module in model.named_children() if name in _AFTER]
    after += [module for name, module in backbone.named_children() if name in last]
    kept = all_blocks if blocks is None else all_blocks[len(all_blocks) - blocks :]
    layers = [*(_Layer([block], []) for block in kept), _Layer(after, [])]
    if blocks is None:
        containers = (nn.Sequential, nn.ModuleList)  # of the blocks
        first = [m for name, m in backbone.named_children() if name not in last and not isinstance(m, containers)]
        layers.insert(0, _Layer(first, [p for _, p in backbone.named_parameters(recurse=False)]))
    return layers


# What the inference embedding of DERI and MERL runs through behind the backbone.
_AFTER = ("token_conv", "token_attention", "ecg_to_text", "text_projection", "attention_pool", "ecg_projection")


def _train_mode(model: EcgTextModel, layers: list[_Layer]) -> None:
    """Train mode for what is trained; the rest keeps its batch-norm statistics and has no dropout."""
    model.eval()
    for layer in layers:
        for module in layer.modules:
            module.train()


def _batches(order: np.ndarray, size: int) -> list[np.ndarray]:
    """Batches of ``size``; a last one of a single record joins the one before, as batch norm has no use for it."""
    parts = [order[i : i + size] for i in range(0, len(order), size)]
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [np.concatenate(parts[-2:])]
    return parts


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout from ``seed``; torch's global generators are left as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _probe_head(data: TaskData) -> nn.Linear:
    """The corrected probe as a linear layer."""
    weight, bias, _ = fit_corrected(data.train, data.val)
    head = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
    return head


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
