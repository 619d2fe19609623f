"""Training of a report writer: teacher forcing on a store's reports, the best weights by validation."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deri._version import __version__
from deri.errors import DeriError
from deri.files import digest_of, write_json, writing
from deri.generation.config import WriterConfig, name_of
from deri.generation.data import (
    Targets,
    epoch_batches,
    report_languages,
    report_texts,
    store_identity,
    tagged,
    training_rows,
)
from deri.generation.decoders import build_decoder, rebuild_decoder
from deri.generation.decoders.base import ReportDecoder
from deri.generation.memory import MemoryCache, memory_of, memory_shape, read_memory, statistics_of
from deri.generation.writer import ReportWriter
from deri.models import EcgTextModel
from deri.models.calibration import encoder_digest
from deri.models.device import to_device
from deri.models.precision import autocast, choose_precision
from deri.objectives.gather import summed
from deri.progress import SILENT, Progress
from deri.recipes import schema
from deri.store import Store
from deri.training.distributed import Replica, broadcast_weights, join_replicas, shard, whole
from deri.training.engine import Engine, EpochResult, Task, Validation, derived_seed
from deri.training.log import RunLog
from deri.training.optimiser import adamw
from deri.training.state import Checkpoint, Named, claim_directory

_STATE_VERSION = 3
"""3: reports without stamps, behind the tag of their language."""


def train_writer(
    model: EcgTextModel,
    store: Store,
    out: str | Path,
    config: WriterConfig | None = None,
    *,
    model_name: str = "",
    resume: bool = False,
    device: str | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Train a report writer on the ECGs and reports of a store; returns the run directory.

    The run holds ``run.json``, ``log.jsonl``, ``checkpoints/last.safetensors`` (to resume), ``memory/`` (what a frozen
    encoder says of every record, computed once) and ``writer/``: the weights of the epoch with the lowest
    cross-entropy on the val split, for :meth:`ReportWriter.from_pretrained`. Started by ``torchrun`` it uses all
    processes, with the batches of one; a resumed run may have another number of them.

    Args:
        model: the ECG encoder; changed where ``config.encoder`` is ``tuned``.
        store: with reports in the splits train and val; records without a report are left out and counted.
        out: the run directory: new, empty, or with ``resume`` one to continue, on a CPU with the same bits.
        config: what to train and how.
        model_name: for the provenance.
        resume: continue the run in ``out``; starts it where there is none yet.
        device: ``cpu``, ``cuda`` or ``cuda:N``; the GPU where there is one when not given.
        progress: receives messages, and (steps done, steps in all).

    Raises:
        DeriError: no reports, no val split, a wrong option, a checkpoint of another run, or a loss that is not finite.
    """
    config, out = config or WriterConfig(), Path(out)
    with writing(out, "go on with --resume"), join_replicas(device) as replica:
        progress = progress if replica.main else SILENT
        if replica.main:
            claim_directory(out, resume=resume)
        task = WriterTask(model, store, out, config, model_name, progress, replica)
        last = out / "checkpoints" / "last.safetensors"
        engine = Engine(
            task,
            task.schedule(),
            adamw(task.trained, config.learning_rate, config.weight_decay, scale=task.scale),
            replica,
            checkpoint=Checkpoint(last, task.identity, frozenset({"epochs"}), _STATE_VERSION),
            progress=progress,
        )
        if resume and engine.resume():
            progress.message(f"resuming {out} at step {engine.state.step}")
        log: AbstractContextManager[RunLog | None] = nullcontext()
        if replica.main:
            task.describe(out)
            log = closing(RunLog(out / "log.jsonl", engine.state.step, first_epoch=1))
        with log as engine.log, replica.watched():
            engine.fit()
    return out


@dataclass
class _Batch:
    """Micro-batch: the memory or, for a tuned encoder, the ECG; and the tokens.

    ``tokens`` and ``reports`` are in the micro-batch, ``step_tokens`` in the step, of all processes.
    """

    ids: Tensor
    lengths: Tensor
    memory: Tensor | None = None
    mask: Tensor | None = None
    ecg: Tensor | None = None
    valid: Tensor | None = None
    tokens: int = 0
    reports: int = 0
    step_tokens: int = 1


class WriterTask(Task[_Batch]):
    """Cross-entropy of a store's reports, token by token, given the memory of their ECGs."""

    logs_epochs = True
    advice = "lower lr or use precision=fp32"
    batch_option = "batch_size"

    def __init__(
        self,
        model: EcgTextModel,
        store: Store,
        out: Path,
        config: WriterConfig,
        model_name: str,
        progress: Progress,
        replica: Replica,
    ) -> None:
        model = model.to(replica.device)
        self.model, self.store, self.config, self.progress = model, store, config, progress
        self.model_name, self.replica = model_name, replica
        self.sharded = config.shard and replica.world > 1
        self.device, self.tuned = model.device, config.encoder == "tuned"
        self.precision = choose_precision(config.precision, self.device, fp16=False)
        self.rows, self.val_rows, self.without_report = training_rows(store)
        plain, ids = store.reports if config.keep_stamps else report_texts(store), store.report_ids
        self.languages = report_languages(plain[i] for i in ids[self.rows])
        tags = self.languages if len(self.languages) > 1 else ()
        reports = [tagged(text, tags) for text in plain]
        texts = [reports[i] for i in np.unique(ids[self.rows])]
        digest = encoder_digest(model)
        decoder, self.tokenizer = build_decoder(config, memory_shape(model, config.memory), texts)
        self.both = np.union1d(self.rows, self.val_rows)
        self.targets = Targets.encode(store, reports, self.tokenizer, self.both, config.max_tokens)
        per_step = config.batch_size * config.accumulate  # batches are all whole but the last one
        self.steps_per_epoch = -(-len(self.rows) // per_step)
        out.mkdir(parents=True, exist_ok=True)
        self.cache: MemoryCache | None = None
        if not self.tuned:
            folder = Path(config.cache) if config.cache else out / "memory"
            progress.message(f"memory {config.memory} of {len(self.both)} records …")
            self.cache = replica.first(lambda: MemoryCache.build(model, store, self.both, config.memory, folder))
        get = self.cache.get if self.cache else lambda rows: read_memory(model, store, rows, config.memory)
        decoder.memory_input.standardise(*statistics_of(get, self.rows))
        model.requires_grad_(False)
        if self.tuned:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(not name.startswith("text_encoder."))
        modules = nn.ModuleDict({"decoder": decoder.to(self.device), "encoder": model})
        broadcast_weights(decoder, replica.world)
        if self.sharded:
            shard(decoder, replica.world, "loss")
        self.decoder = decoder
        self.trained: Named = [(n, p) for n, p in modules.named_parameters() if p.requires_grad]
        self.identity = _identity(config, store, digest)
        self.about: dict[str, Any] = {
            "encoder": {
                "source": name_of(model_name),
                "recipe": model.recipe_name,
                "tuned": self.tuned,
                "digest": digest,
            },
            "store": store_identity(store),
            "languages": self.languages,
        }
        self._kept = out / "writer"

    def schedule(self) -> schema.Train:
        """The writer's config in the words of the engine."""
        config, lr = self.config, self.config.learning_rate
        return schema.Train(
            epochs=config.epochs,
            lr=lr,
            min_lr=lr * config.min_lr,
            warmup_steps=int(self.steps_per_epoch * config.epochs * config.warmup),
            clip_grad=config.clip_grad,
            log_steps=config.log_steps,
            checkpoint_steps=config.checkpoint_steps,
            prefetch=config.prefetch,
            precision=self.precision,
        )

    def scale(self, name: str) -> float:
        """A lower learning rate for the encoder."""
        return self.config.encoder_lr if name.startswith("encoder.") else 1.0

    def describe(self, out: Path) -> None:
        """Write ``run.json``, and say what is trained on what."""
        config = self.config
        cut = int(self.targets.cut[self.store.report_ids[self.both]].sum())
        records = {
            "train": len(self.rows), "val": len(self.val_rows), "without_report": self.without_report, "cut": cut,
        }  # fmt: skip
        write_json(
            out / "run.json",
            {
                "format": "deri-report-run",
                "version": 1,
                "deri_version": __version__,
                "data": str(self.store.path),
                "store": self.store.fingerprint,
                "model": self.model_name,
                "run_id": digest_of(self.identity),
                "records": records,
                "config": config.model_dump(),
            },
        )
        trained = sum(p.numel() for _, p in self.trained) / 1e6
        notes = [f"{self.without_report} without a report left out"] if self.without_report else []
        notes += [f"languages {', '.join(self.languages)}"] if len(self.languages) > 1 else []
        notes += [f"{cut} reports cut at {config.max_tokens} tokens"] if cut else []
        self.progress.message(
            f"writer {config.writer}: {trained:.2f} M parameters trained, vocabulary of {len(self.tokenizer)}, "
            f"{len(self.rows)} training and {len(self.val_rows)} validation records, {self.steps_per_epoch} steps an "
            f"epoch, {self.precision} on {self.device}" + "".join(f"; {note}" for note in notes)
        )

    def seed(self, step: int) -> int:
        """Of dropout, which differs between processes."""
        rank = self.replica.rank
        return derived_seed(self.config.seed, step, *([rank] if rank else []))

    def step_rows(self, step: int) -> list[np.ndarray]:
        """Of the micro-batches of a step."""
        epoch, i = divmod(step, self.steps_per_epoch)
        n = self.config.accumulate
        return self._epoch_batches(epoch)[i * n : (i + 1) * n]

    def read(self, step: int) -> list[_Batch]:
        """The micro-batches of a step."""
        parts = []
        for rows in self.step_rows(step):
            own = rows[self.replica.part(len(rows))]
            part = self._read(own if len(own) else rows[:1])
            if not len(own):
                part.lengths.zero_()  # fewer rows than processes: none of its tokens count
            part.tokens, part.reports = int(self.targets.lengths(rows).sum()), len(rows)
            parts.append(part)
        for part in parts:
            part.step_tokens = sum(one.tokens for one in parts)
        return parts

    def prepare(self, part: _Batch, step: int = 0) -> _Batch:
        """On the device; nothing is drawn."""
        return to_device(part, self.device)

    def forward(self, part: _Batch) -> Tensor:
        """Summed cross-entropy of the tokens of this process."""
        if part.ecg is not None:
            memory, mask = memory_of(self.model, part.ecg, part.valid, self.config.memory)
        else:
            assert part.memory is not None
            memory, mask = part.memory, part.mask
        return self.decoder.loss(memory, mask, part.ids, part.lengths)

    def losses(self, output: Tensor, part: _Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The part's share of the mean per token of the step."""
        return {"cross_entropy": summed(output) / part.step_tokens}, {}

    def amounts(self, part: _Batch) -> dict[str, int]:
        """Tokens and reports of all processes."""
        return {"tokens": part.tokens, "reports": part.reports}

    def weights(self) -> dict[str, Tensor]:
        """What is trained; what is frozen is built again from its source."""
        return dict(self.trained)

    def train_mode(self, on: bool) -> None:
        """Of the decoder. Batch-norm statistics of a tuned encoder stay those of its pre-training."""
        self.decoder.train(on)
        self.model.eval()

    @torch.no_grad()
    def validate(self) -> Validation:
        """Cross-entropy per token on the val split."""
        order = self.val_rows[np.argsort(self.targets.lengths(self.val_rows), kind="stable")]
        size = max(self.config.batch_size, 32)
        total, tokens = 0.0, 0
        for start in range(0, len(order), size):
            self.replica.beat()
            batch = self._read(order[start : start + size])
            with autocast(self.precision, self.device):
                total += float(self.forward(self.prepare(batch)))
            tokens += int(batch.lengths.sum())
        return Validation(total / tokens, {"loss": total / tokens})

    def epoch_done(self, result: EpochResult) -> None:
        """Say how the epoch went; write the writer of the lowest loss on the val split."""
        assert result.validation is not None
        epoch, loss, rate = result.epoch + 1, result.validation.criterion, result.train["tokens_per_s"]
        self.progress.message(
            f"epoch {epoch}: train {result.train_loss:.4f}, val {loss:.4f} nats per token{' *' if result.best else ''} "
            f"({rate:,.0f} tokens/s)"
        )
        if not result.best:
            return
        decoder = self._whole_decoder()
        if not self.replica.main:
            return
        encoder = dict(self.about["encoder"])
        if self.tuned:
            encoder |= {"from": encoder["digest"], "digest": encoder_digest(self.model)}
        training = {"records": len(self.rows), "epoch": epoch, "val_loss": loss}
        about = {**self.about, "encoder": encoder, "training": training}
        writer = ReportWriter(self.config, self.model, decoder, self.tokenizer, about)
        writer.save_pretrained(self._kept, encoder=self.tuned)

    def _whole_decoder(self) -> ReportDecoder:
        """The decoder; where it is sharded, one on the CPU that is put together by all, for the main process."""
        if not self.sharded:
            return self.decoder
        state = {name: whole(value) for name, value in self.decoder.state_dict().items()}
        shape = memory_shape(self.model, self.config.memory)
        decoder = rebuild_decoder(self.config, shape, self.decoder.architecture())
        decoder.load_state_dict(state)
        return decoder

    @cached_property
    def _epoch_batches(self) -> Callable[[int], list[np.ndarray]]:
        lengths, config = self.targets.lengths(self.rows), self.config
        # Two epochs: the next one is read ahead.
        return lru_cache(2)(lambda epoch: epoch_batches(self.rows, lengths, config.batch_size, config.seed, epoch))

    def _read(self, rows: np.ndarray) -> _Batch:
        ids, lengths = self.targets.batch(rows)
        batch = _Batch(torch.from_numpy(ids), torch.from_numpy(lengths))
        if self.cache is not None:
            batch.memory, batch.mask = self.cache.get(rows)
        else:
            batch.ecg, batch.valid = self.model.preprocess.of_store(self.store, rows)
        return batch


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


def _identity(config: WriterConfig, store: Store, digest: str) -> dict[str, Any]:
    """What decides what is computed; how often it is logged or saved does not belong to it."""
    left_out = {"log_steps", "checkpoint_steps", "prefetch", "cache", "shard"}
    left_out |= {"beams", "length_penalty", "no_repeat_ngram", "repetition_penalty"}
    content = {**config.model_dump(exclude=left_out), "store": store.fingerprint, "encoder_digest": digest}
    if config.tokenizer is None and "tokenizer" in config.decoder.options:
        content["tokenizer"] = "scratch"  # runs of before that name none have MedCPT's
    return content
