"""Training of a report writer: teacher forcing on a store's reports, the best weights by validation."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deri._version import __version__
from deri.errors import DeriError
from deri.evaluation.features import encoder_digest
from deri.files import write_json
from deri.generation.build import build_decoder
from deri.generation.config import WriterConfig
from deri.generation.data import Targets, epoch_batches, training_rows
from deri.generation.memory import MemoryCache, memory_of, memory_shape, read_memory, statistics_of
from deri.generation.state import Progress, StepLog, load_state, save_state
from deri.generation.writer import ReportWriter
from deri.models import EcgTextModel
from deri.recipes import schema
from deri.store import Store
from deri.training.batches import prefetch
from deri.training.schedule import learning_rate
from deri.training.state import Named

Say = Callable[[str], None]
Show = Callable[[int, int], None]


def train_writer(
    model: EcgTextModel,
    store: Store,
    out: str | Path,
    config: WriterConfig | None = None,
    *,
    model_name: str = "",
    resume: bool = False,
    device: str | None = None,
    say: Say = print,
    show: Show | None = None,
) -> Path:
    """Train a report writer on the ECGs and reports of a store; returns the run directory.

    The run holds ``run.json``, ``log.jsonl``, ``checkpoints/last.safetensors`` (to resume), ``memory/`` (what a frozen
    encoder says of every record, computed once) and ``writer/``: the weights of the epoch with the lowest
    cross-entropy on the val split, for :meth:`ReportWriter.from_pretrained`.

    Args:
        model: the ECG encoder; changed where ``config.encoder`` is ``tuned``.
        store: with reports in the splits train and val; records without a report are left out and counted.
        out: the run directory: new, empty, or with ``resume`` one to continue, on a CPU with the same bits.
        config: what to train and how.
        model_name: for the provenance.
        resume: continue the run in ``out``; starts it where there is none yet.
        device: ``cpu``, ``cuda`` or ``cuda:N``; the GPU where there is one when not given.
        say: receives lines for people.
        show: receives (steps done, steps in all).

    Raises:
        DeriError: no reports, no val split, a wrong option, a checkpoint of another run, or a loss that is not finite.
    """
    config = config or WriterConfig()
    out = Path(out)
    if out.is_file() or (not resume and out.exists() and any(out.iterdir())):
        raise DeriError(f"--out {out} exists and is not empty; continue it with --resume, or name another")
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    run = _Run(model.to(chosen), store, out, config, model_name, resume, say)
    try:
        run.fit(say, show)
    finally:
        run.log.close()
    return out


@dataclass
class _Batch:
    """Micro-batch: the memory or, for a tuned encoder, the ECG; and the tokens."""

    ids: Tensor
    lengths: Tensor
    memory: Tensor | None = None
    mask: Tensor | None = None
    ecg: Tensor | None = None
    valid: Tensor | None = None


class _Run:
    def __init__(
        self,
        model: EcgTextModel,
        store: Store,
        out: Path,
        config: WriterConfig,
        model_name: str,
        resume: bool,
        say: Say,
    ) -> None:
        self.model, self.store, self.out, self.config = model, store, out, config
        self.device = model.device
        self.tuned = config.encoder == "tuned"
        self.rows, self.val_rows, without = training_rows(store)
        texts = [store.reports[i] for i in np.unique(store.report_ids[self.rows])]
        digest = encoder_digest(model)
        decoder, self.tokenizer = build_decoder(config, memory_shape(model, config.memory), texts)
        both = np.union1d(self.rows, self.val_rows)
        self.targets = Targets.encode(store, self.tokenizer, both, config.max_tokens)
        self.lengths = self.targets.lengths(self.rows)
        per_step = config.batch_size * config.accumulate  # batches are all whole but the last one
        self.steps_per_epoch = -(-len(self.rows) // per_step)
        self.total = self.steps_per_epoch * config.epochs
        self._valid = store.index["valid_samples"].to_numpy(np.int64)
        self._plans: dict[int, list[np.ndarray]] = {}
        cut = int(self.targets.cut[store.report_ids[both]].sum())
        records = {"train": len(self.rows), "val": len(self.val_rows), "without_report": without, "cut": cut}

        out.mkdir(parents=True, exist_ok=True)
        self.cache: MemoryCache | None = None
        if self.tuned:
            mean, scale = statistics_of(lambda rows: read_memory(model, store, rows, config.memory), self.rows)
        else:
            folder = Path(config.cache) if config.cache else out / "memory"
            say(f"memory {config.memory} of {len(both)} records …")
            self.cache = MemoryCache.build(model, store, both, config.memory, folder)
            mean, scale = self.cache.statistics(self.rows)
        decoder.memory_input.standardise(mean, scale)
        model.requires_grad_(False)
        if self.tuned:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(not name.startswith("text_encoder."))
        self.modules = nn.ModuleDict({"decoder": decoder.to(self.device), "encoder": model})
        self.decoder = decoder
        self.named: Named = [(n, p) for n, p in self.modules.named_parameters() if p.requires_grad]
        self.optimizer = self._optimizer()

        self.run_id = _run_id(config, store, digest)
        self.checkpoint = out / "checkpoints" / "last.safetensors"
        self.progress = Progress()
        if resume and self.checkpoint.is_file():
            self.progress = load_state(self.checkpoint, self.named, self.optimizer, self.run_id)
            say(f"resuming {out} at step {self.progress.step}")
        self.about: dict[str, Any] = {
            "encoder": {"source": model_name, "recipe": model.recipe_name, "tuned": self.tuned, "digest": digest},
            "store": store.provenance,
        }
        write_json(
            out / "run.json",
            {
                "format": "deri-report-run",
                "version": 1,
                "deri_version": __version__,
                "data": str(store.path),
                "store": store.fingerprint,
                "model": model_name,
                "run_id": self.run_id,
                "records": records,
                "config": config.model_dump(),
            },
        )
        self.log = StepLog(out / "log.jsonl", self.progress.step)
        self.precision = _precision(config.precision, self.device)
        trained = sum(p.numel() for _, p in self.named) / 1e6
        notes = [f"{without} without a report left out"] if without else []
        notes += [f"{cut} reports cut at {config.max_tokens} tokens"] if cut else []
        say(
            f"writer {config.writer}: {trained:.2f} M parameters trained, vocabulary of {len(self.tokenizer)}, "
            f"{len(self.rows)} training and {len(self.val_rows)} validation records, {self.steps_per_epoch} steps an "
            f"epoch, {self.precision} on {self.device}" + "".join(f"; {note}" for note in notes)
        )

    # --- the loop --------------------------------------------------------------------------------------------------

    def fit(self, say: Say, show: Show | None) -> None:
        config, progress = self.config, self.progress
        steps = range(progress.step, self.total)
        began, tokens, reports, losses = time.perf_counter(), 0, 0, 0.0
        self._mode(training=True)
        for step, batches in zip(steps, prefetch(self._read_step, steps, config.prefetch), strict=True):
            loss, lr = self._step(step, batches)
            n = sum(int(batch.lengths.sum()) for batch in batches)
            tokens, losses = tokens + n, losses + loss * n
            reports += sum(len(batch.ids) for batch in batches)
            progress.step = step + 1
            end = progress.step % self.steps_per_epoch == 0
            if progress.step % config.log_steps == 0 or end:
                if not np.isfinite(losses):
                    raise DeriError(
                        f"the loss is {losses / tokens} at step {progress.step}: lower lr or use precision=fp32; the "
                        "last checkpoint is from before"
                    )
                seconds = time.perf_counter() - began
                self.log.write(
                    split="train", step=progress.step, epoch=step // self.steps_per_epoch + 1, loss=losses / tokens,
                    lr=lr, tokens_per_s=round(tokens / seconds, 1), reports_per_s=round(reports / seconds, 1),
                )  # fmt: skip
                rate = f"{tokens / seconds:,.0f} tokens/s"
                if end:
                    self._end_of_epoch(progress.step // self.steps_per_epoch, losses / tokens, rate, say)
                began, tokens, reports, losses = time.perf_counter(), 0, 0, 0.0
            if end or progress.step % config.checkpoint_steps == 0:
                save_state(self.checkpoint, self.named, self.optimizer, progress, self.run_id)
            if show:
                show(progress.step, self.total)
        self._mode(training=False)

    def _step(self, step: int, batches: list[_Batch]) -> tuple[float, float]:
        """One step: the mean loss per token over its micro-batches. Its randomness comes from (seed, step) alone."""
        config = self.config
        schedule = schema.Train(
            lr=config.learning_rate,
            min_lr=config.learning_rate * config.min_lr,
            warmup_steps=int(self.total * config.warmup),
        )
        lr = learning_rate(step, self.total, schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["scale"]
        torch.manual_seed(_mix(config.seed, step))
        total = sum(int(batch.lengths.sum()) for batch in batches)
        value = 0.0
        for batch in batches:
            loss = self._loss(batch) / total
            loss.backward()
            value += float(loss.detach())
        nn.utils.clip_grad_norm_([p for _, p in self.named], config.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return value, lr

    def _loss(self, batch: _Batch) -> Tensor:
        batch = self._here(batch)
        with _autocast(self.precision, self.device):
            if batch.ecg is not None:
                memory, mask = memory_of(self.model, batch.ecg, batch.valid, self.config.memory)
            else:
                assert batch.memory is not None
                memory, mask = batch.memory, batch.mask
            return self.decoder.loss(memory, mask, batch.ids, batch.lengths)

    def _end_of_epoch(self, epoch: int, train_loss: float, rate: str, say: Say) -> None:
        loss = self.validate()
        self.log.write(split="val", step=self.progress.step, epoch=epoch, loss=loss)
        best = self.progress.best_loss is None or loss < self.progress.best_loss
        say(f"epoch {epoch}: train {train_loss:.4f}, val {loss:.4f} nats per token{' *' if best else ''} ({rate})")
        if not best:
            return
        self.progress.best_loss, self.progress.best_epoch = loss, epoch
        training = {"records": len(self.rows), "epoch": epoch, "val_loss": loss}
        encoder = dict(self.about["encoder"])
        if self.tuned:
            encoder |= {"from": encoder["digest"], "digest": encoder_digest(self.model)}
        writer = ReportWriter(
            self.config,
            self.model,
            self.decoder,
            self.tokenizer,
            {**self.about, "encoder": encoder, "training": training},
        )
        # The writer comes before the checkpoint: a kill in between repeats the epoch's end and writes it again.
        writer.save_pretrained(self.out / "writer", encoder=self.tuned)

    def validate(self) -> float:
        """Cross-entropy per token on the val split."""
        self._mode(training=False)
        order = self.val_rows[np.argsort(self.targets.lengths(self.val_rows), kind="stable")]
        size = max(self.config.batch_size, 32)
        total, tokens = 0.0, 0
        with torch.no_grad():
            for start in range(0, len(order), size):
                batch = self._read(order[start : start + size])
                total += float(self._loss(batch))
                tokens += int(batch.lengths.sum())
        self._mode(training=True)
        return total / tokens

    def _mode(self, *, training: bool) -> None:
        # Batch-norm statistics of a tuned encoder stay those of its pre-training.
        self.decoder.train(training)
        self.model.eval()

    # --- reading ---------------------------------------------------------------------------------------------------

    def _read_step(self, step: int) -> list[_Batch]:
        epoch, i = divmod(step, self.steps_per_epoch)
        if epoch not in self._plans:  # two epochs at most: the next one is read ahead
            plan = epoch_batches(self.rows, self.lengths, self.config.batch_size, self.config.seed, epoch)
            self._plans = {key: value for key, value in self._plans.items() if key >= epoch - 1} | {epoch: plan}
        n = self.config.accumulate
        return [self._read(rows) for rows in self._plans[epoch][i * n : (i + 1) * n]]

    def _read(self, rows: np.ndarray) -> _Batch:
        ids, lengths = self.targets.batch(rows)
        batch = _Batch(torch.from_numpy(ids), torch.from_numpy(lengths))
        if self.cache is not None:
            batch.memory, batch.mask = self.cache.get(rows)
        else:
            signals, mask = self.store.signals(rows), self.store.lead_mask(rows)
            batch.ecg, batch.valid = self.model.preprocess(signals, self.store.fs, self._valid[rows], mask)
        return batch

    def _here(self, batch: _Batch) -> _Batch:
        if self.device.type == "cpu":
            return batch
        moved: dict[str, Any] = {
            name: None if value is None else value.to(self.device, non_blocking=True)
            for name, value in vars(batch).items()
        }
        return _Batch(**moved)

    def _optimizer(self) -> torch.optim.AdamW:
        """AdamW; weight decay on matrices alone, a lower rate for the encoder."""
        groups = []
        for prefix, scale in (("decoder.", 1.0), ("encoder.", self.config.encoder_lr)):
            for matrix in (True, False):
                chosen = [p for n, p in self.named if n.startswith(prefix) and (p.dim() >= 2) is matrix]
                if chosen:
                    decay = self.config.weight_decay if matrix else 0.0
                    groups.append({"params": chosen, "weight_decay": decay, "scale": scale})
        return torch.optim.AdamW(groups, lr=self.config.learning_rate, fused=self.device.type == "cuda")


def stored_config(out: Path) -> dict[str, Any]:
    """The config of the run in ``out``, from which ``--resume`` starts; nothing where there is no run."""
    path = out / "run.json"
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return dict(content["config"])
    except (ValueError, KeyError, TypeError):
        raise DeriError(f"{path} is not of a report writer's run: name another --out") from None


def _run_id(config: WriterConfig, store: Store, digest: str) -> str:
    """Identity of what is computed; how often it is logged or saved does not belong to it."""
    left_out = {"log_steps", "checkpoint_steps", "prefetch", "cache"}
    left_out |= {"beams", "length_penalty", "no_repeat_ngram", "repetition_penalty"}
    identity = json.dumps([config.model_dump(exclude=left_out), store.fingerprint, digest], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _mix(seed: int, step: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed} {step}".encode(), digest_size=7).digest(), "big")


def _precision(wanted: str, device: torch.device) -> str:
    if wanted != "auto":
        return wanted
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def _autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, dtype=torch.bfloat16)
