"""The training loop: set up, fit, validate, keep the state."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from torch.nn.attention import SDPBackend, sdpa_kernel

from deri._version import __version__
from deri.errors import DeriError
from deri.files import write_json, write_text
from deri.models import build_model, build_text_encoder
from deri.models.build import check_names, model_card
from deri.models.text import TextEncoder
from deri.objectives import PairObjective
from deri.recipes import Recipe
from deri.reports.statements import split_statements
from deri.store import Store
from deri.store import TextFeatures as TextFeatureCache
from deri.training.augment import augment
from deri.training.batches import Batch, Order, Pairs, SingleStatements, prefetch
from deri.training.distributed import (
    Process,
    average_gradients,
    broadcast_weights,
    processes,
    synchronise_batchnorm,
)
from deri.training.log import RunLog
from deri.training.schedule import learning_rate
from deri.training.state import Progress, load_state, save_state, trained_parameters
from deri.training.task import PairTask
from deri.training.validate import validate

Say = Callable[[str], None]
Show = Callable[[int, int], None]


def pretrain(
    data: str | Path,
    out: str | Path,
    recipe: Recipe,
    *,
    resume: bool = False,
    device: str | None = None,
    say: Say = print,
    show: Show | None = None,
) -> Path:
    """Pre-train a model on the pairs of a store; returns the run directory.

    The run holds ``recipe.yaml``, ``run.json``, ``metrics.jsonl``, ``checkpoints/last.safetensors`` (to resume) and
    ``model/`` (the weights with the lowest held-out loss, ready for use). Started by ``torchrun`` it uses all
    processes. With ``resume`` it continues from the last checkpoint, on a CPU with the same bits as an undisturbed run.

    Args:
        data: a store made by ``deri prepare``.
        out: the run directory.
        recipe: what to train and how.
        resume: continue the run in ``out``; starts it where there is none yet.
        device: ``cpu``, ``cuda`` or ``cuda:N``; the GPU where there is one when not given.
        say: receives lines for people.
        show: receives (steps done, steps in all).
    """
    out = Path(out)
    with processes(device) as process:
        quiet: Say = say if process.main else _silent
        run = _setup(Path(data), out, recipe, resume, process, quiet)
        try:
            _fit(run, quiet, show if process.main else None)
        finally:
            run.log.close() if run.log else None
        process.barrier()
    return out


@dataclass
class _Run:
    """Everything the loop needs."""

    out: Path
    recipe: Recipe
    process: Process
    task: PairTask
    pairs: Pairs
    order: Order
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    precision: str
    progress: Progress
    run_id: str
    log: RunLog | None

    @property
    def checkpoint(self) -> Path:
        return self.out / "checkpoints" / "last.safetensors"

    @property
    def total(self) -> int:
        return self.order.steps_per_epoch * self.recipe.train.epochs


def _setup(data: Path, out: Path, recipe: Recipe, resume: bool, process: Process, say: Say) -> _Run:
    train = recipe.train
    check_names(recipe.model)
    checkpoint = out / "checkpoints" / "last.safetensors"
    if not resume and out.exists() and any(out.iterdir()):
        raise DeriError(f"{out} exists and is not empty; continue it with --resume, or name another --out")
    store = Store.open(data)
    text_encoder = build_text_encoder(recipe.model.text).to(process.device)
    cache = _cached(store, text_encoder, recipe, process) if recipe.model.text.cacheable else None
    model = build_model(recipe.model, seed=train.seed, text_encoder=text_encoder).to(process.device)
    model.recipe_name = recipe.name
    if train.sync_batchnorm and process.world > 1:
        synchronise_batchnorm(model)
    pairs = Pairs(store, model, cache, _single_statements(store, text_encoder, recipe, process))
    order = Order.make(pairs.rows("train"), train, process.rank, process.world)
    objective = PairObjective(recipe.objective).to(process.device)
    optimizer = _optimizer(trained_parameters(model, objective), recipe, process)
    run_id = _run_id(recipe, store, process)
    progress = Progress()
    if resume and checkpoint.is_file():
        progress = load_state(checkpoint, model, objective, optimizer, run_id)
        say(f"resuming {out} at step {progress.step}")
    elif process.main:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "recipe.yaml", yaml.safe_dump(recipe.model_dump(), sort_keys=False))
        about = {"data": str(data), "store": store.fingerprint, "processes": process.world, "run_id": run_id}
        write_json(out / "run.json", {"format": "deri-run", "version": 1, "deri_version": __version__, **about})
    broadcast_weights(model, process.world)
    process.barrier()
    precision = _precision(train.precision, process.device)
    scaler = torch.amp.GradScaler(process.device.type, enabled=precision == "fp16")
    if progress.scaler:
        scaler.load_state_dict(progress.scaler)
    task = PairTask(model, objective, process)
    log = RunLog(out, progress.step, say) if process.main else None
    pairs_text = f"{len(order.rows)} training pairs, batches of {order.batch_size} × {process.world}"
    say(f"{recipe.name}: {pairs_text}, {order.steps_per_epoch} steps an epoch, {precision} on {process.device}")
    return _Run(out, recipe, process, task, pairs, order, optimizer, scaler, precision, progress, run_id, log)


def _cached(
    store: Store, encoder: TextEncoder, recipe: Recipe, process: Process, texts: list[str] | None = None, kind: str = ""
) -> TextFeatureCache:
    """Features of the reports, or ``texts``: one process computes them, the others find them done."""
    dtype = recipe.model.text.cache_dtype
    if process.main:
        cache = TextFeatureCache.build(store, encoder, texts=texts, kind=kind, dtype=dtype)
    process.barrier()
    if not process.main:
        cache = TextFeatureCache.build(store, encoder, texts=texts, kind=kind, dtype=dtype)
    return cache


def _single_statements(store: Store, encoder: TextEncoder, recipe: Recipe, process: Process) -> SingleStatements | None:
    if recipe.objective.shared != "findings":
        return None
    statements = split_statements(store.reports)
    share = recipe.train.statements
    features = None
    if share and statements.texts:
        features = _cached(store, encoder, recipe, process, statements.texts, "statements")
    return SingleStatements(statements, features, share)


def _fit(run: _Run, say: Say, show: Show | None) -> None:
    train = run.recipe.train
    model = run.task.model.train()
    val_rows = run.pairs.rows("val")
    if len(val_rows) < 2:
        say("warning: no held-out pairs (split val): the last weights are kept, not the best")
    steps = range(run.progress.step, run.total)
    seconds, seen = time.perf_counter(), 0
    for step, batch in zip(steps, prefetch(lambda s: _batch(run, s), steps, train.prefetch), strict=True):
        loss, terms, lr = _step(run, step, batch.to(run.process.device))
        done = step + 1
        seen += len(batch.ecg) * run.process.world
        epoch = step // run.order.steps_per_epoch
        if run.log and (done % train.log_steps == 0 or done == run.total):
            _require_finite(float(loss), step)
            rate = seen / (time.perf_counter() - seconds)
            values = {"loss": float(loss)} | {name: float(value) for name, value in terms.items()}
            run.log.write("train", done, epoch, values | {"lr": lr, "samples_per_s": rate})
            seconds, seen = time.perf_counter(), 0
        run.progress.step = done
        end_of_epoch = done % run.order.steps_per_epoch == 0
        if end_of_epoch and run.process.main:
            _validate(run, val_rows, epoch)
            seconds, seen = time.perf_counter(), 0
        if end_of_epoch or done % train.checkpoint_steps == 0:
            _save(run)
        if show:
            show(done, run.total)
    model.eval()


def _batch(run: _Run, step: int) -> Batch:
    """The pairs of a step; which show one statement is drawn for the global batch: two processes equal one."""
    rows = run.order.step_rows(step)
    draws = None
    if run.recipe.train.statements:
        b, rank = len(rows), run.process.rank
        generator = np.random.default_rng([run.recipe.train.seed, step])
        draws = generator.random((run.process.world * b, 2))[rank * b : (rank + 1) * b]
    return run.pairs.batch(rows, draws)


def _step(run: _Run, step: int, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor], float]:
    """One optimisation step. All randomness in it comes from (seed, step, rank): a resumed run repeats it."""
    train = run.recipe.train
    process = run.process
    lr = learning_rate(step, run.total, train)
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    torch.manual_seed(_mix(train.seed, step, process.rank))
    views = torch.Generator().manual_seed(_mix(train.seed, step, -1))
    if train.augment.active:
        changes = torch.Generator().manual_seed(_mix(train.seed, step, -2))
        batch = augment(batch, train.augment, run.recipe.model.signal.fs, changes, process)
    with _autocast(run.precision, process.device):
        losses, terms = run.task.losses(batch, views)
        loss = torch.stack(list(losses.values())).sum()
    run.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    parameters = [p for _, p in trained_parameters(run.task.model, run.task.objective)]
    average_gradients(parameters, process.world)
    if train.clip_grad is not None:
        run.scaler.unscale_(run.optimizer)
        torch.nn.utils.clip_grad_norm_(parameters, train.clip_grad)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    return loss.detach(), terms, lr


def _validate(run: _Run, rows: object, epoch: int) -> None:
    """Validate, and keep the weights where they are the best so far on held-out pre-training loss."""
    rows = np.asarray(rows)
    progress = run.progress
    if len(rows) < 2:
        best = True
    else:
        values = validate(run.task, run.pairs, rows, run.order.batch_size)
        assert run.log is not None
        run.log.write("val", progress.step, epoch, values)
        best = progress.best_loss is None or values["loss"] < progress.best_loss
        if best:
            progress.best_loss = values["loss"]
    if best:
        progress.best_step = progress.step
        card = model_card(run.task.model) + (
            f"\nPre-trained with recipe `{run.recipe.name}`; weights of step {progress.step}"
            + (f", held-out loss {progress.best_loss:.4f}.\n" if progress.best_loss is not None else ".\n")
        )
        # The model comes before the checkpoint: a kill in between repeats the validation and writes it again.
        run.task.model.save_pretrained(run.out / "model", card=card)


def _save(run: _Run) -> None:
    if run.process.main:
        run.progress.scaler = dict(run.scaler.state_dict()) if run.scaler.is_enabled() else None
        save_state(run.checkpoint, run.task.model, run.task.objective, run.optimizer, run.progress, run.run_id)
    run.process.barrier()


def _optimizer(named: list[tuple[str, torch.nn.Parameter]], recipe: Recipe, process: Process) -> torch.optim.AdamW:
    """AdamW; weight decay only on matrices, as it has no meaning for biases, norms, positions and separators."""
    decayed = [p for n, p in named if p.dim() >= 2 and not n.endswith("positions")]
    others = [p for n, p in named if p.dim() < 2 or n.endswith("positions")]
    groups = [{"params": decayed, "weight_decay": recipe.train.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.train.lr, fused=process.device.type == "cuda")


def _run_id(recipe: Recipe, store: Store, process: Process) -> str:
    """Identity of what is computed; how often it is logged or saved does not belong to it."""
    content = recipe.model_dump()
    for key in ("log_steps", "checkpoint_steps", "prefetch"):
        del content["train"][key]
    identity = json.dumps([content, store.fingerprint, process.world], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _precision(wanted: str, device: torch.device) -> str:
    if wanted != "auto":
        if wanted == "fp16" and device.type == "cpu":
            raise DeriError("train.precision=fp16 needs a GPU; use fp32 or bf16 on a CPU")
        return wanted
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def _autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    if precision == "fp32":
        return nullcontext()
    stack = ExitStack()
    stack.enter_context(torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16))
    if device.type == "cpu":  # where torch's fused attention takes three to four times as long in bf16
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
    return stack


def _mix(seed: int, step: int, rank: int) -> int:
    digest = hashlib.blake2b(f"{seed} {step} {rank}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")


def _require_finite(loss: float, step: int) -> None:
    if loss != loss or loss in (float("inf"), float("-inf")):
        raise DeriError(
            f"the loss is {loss} at step {step}: lower train.lr or use train.precision=fp32; "
            "the last checkpoint is from before"
        )


def _silent(_: str) -> None:
    return None
