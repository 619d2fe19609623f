from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from deri.models import EcgTextModel
from deri.models.output import Output
from deri.objectives import PairBatch, PairObjective
from deri.recipes import Objective
from deri.training.recompute import cached_backward, checkpoint_blocks, unmoved_statistics
from deri.training.spread import Drawn, Rows, spread
from support import tiny

B = 12
ABOUT = PairBatch(report_ids=torch.tensor([0, 1, 2, 0, 3, 1, 4, 5, 6, 7, 8, 9]))
SMALL = ("model.signal.fs=100", "model.signal.samples=800", "model.decoder.dropout=0.3", "model.decoder.drop_path=0.3")


class Case:
    """A model in training on a fixed batch."""

    def __init__(self, backbone: str, rows: Rows | None = None) -> None:
        stride = 1 if backbone.startswith("beat") else "null"
        chosen = (f"model.backbone={backbone}", f"model.token_stride={stride}")
        self.model: EcgTextModel = tiny.model(*SMALL, *chosen).train()
        generator = torch.Generator().manual_seed(0)
        self.ecg = torch.randn(B, 12, 800, generator=generator)
        self.ids = torch.randint(4, 20, (B, 6), generator=generator)
        n = self.model.n_tokens(800)
        self.noise = [torch.rand(B, n, generator=generator) for _ in range(2)]
        self.rows = rows
        if rows is not None:
            spread(self.model, rows, batchnorm=False)

    def embed(self, piece: slice) -> Output:
        torch.manual_seed(5)
        if self.rows is not None:
            self.rows.part = piece
        noise = (self.noise[0][piece], self.noise[1][piece])
        output: Output = self.model(
            self.ecg[piece], self.ids[piece], torch.ones_like(self.ids[piece]), view_noise=noise
        )
        return replace(output, ecg_tokens=None)

    def results(self) -> dict[str, Tensor]:
        grads = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        return grads | {f"buffer {name}": value for name, value in self.model.named_buffers()}


def loss(output: Output) -> Tensor:
    return torch.stack(list(PairObjective(Objective())(output, ABOUT)[0].values())).sum()


def pieces(k: int) -> list[slice]:
    return [slice(i * B // k, (i + 1) * B // k) for i in range(k)]


def compare(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("k", [2, 5])
def test_parts_without_batch_norm_have_loss_and_gradients_of_the_whole(k: int, kept: bool) -> None:
    """Also with dropout, which draws for the whole batch; and the parts need not be equal."""
    whole, parts = Case("vit_tiny"), Case("vit_tiny", Rows(slice(0, B), B, Drawn() if kept else None))
    expected = whole.embed(slice(0, B))
    loss(expected).backward()  # type: ignore[no-untyped-call]
    output = cached_backward(pieces(k), parts.embed, loss, parts.model)
    torch.testing.assert_close(loss(output), loss(expected).detach())
    compare(parts.results(), whole.results())


def test_dropout_that_is_kept_equals_that_of_the_whole_batch_to_the_bit_and_so_does_what_is_drawn_after_it() -> None:
    def results(drawn: Drawn | None) -> list[Tensor]:
        rows = Rows(slice(0, 5), 5, drawn)
        layer = nn.Sequential(nn.Dropout(0.3))
        spread(layer, rows, batchnorm=False)
        found = []
        for rows.part in (slice(0, 2), slice(2, 5), slice(0, 5)):
            torch.manual_seed(3)
            x = torch.arange(1.0, 5 * 77 + 1).view(5, 7, 11)[rows.part]
            found += [layer(x), layer(x), torch.rand(2)]
        return found

    drawn = Drawn()
    for kept, anew in zip(results(drawn), results(None), strict=True):
        assert torch.equal(kept, anew)
    assert len(drawn.known) == 2


def test_statistics_of_batch_norm_are_those_of_each_part_and_are_kept_once() -> None:
    """As one graph over the parts has it, computed one after the other."""
    one, other = Case("resnet18", Rows(slice(0, B), B)), Case("resnet18", Rows(slice(0, B), B))
    outputs = [one.embed(piece) for piece in pieces(3)]
    loss(outputs[0].map(lambda *values: torch.cat(values), *outputs[1:])).backward()  # type: ignore[no-untyped-call]
    cached_backward(pieces(3), other.embed, loss, other.model)
    compare(other.results(), one.results())
    assert int(other.model.get_buffer("backbone.bn1.num_batches_tracked")) == 3


@pytest.mark.parametrize("backbone", ["resnet18", "beat_resnet18", "vit_tiny"])
def test_checkpointed_blocks_change_nothing(backbone: str) -> None:
    plain, checkpointed = Case(backbone), Case(backbone)
    names = list(checkpointed.model.state_dict())
    checkpoint_blocks(checkpointed.model.backbone.blocks)
    saved: list[int] = []
    for case in (plain, checkpointed):
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(partial(_count, kept), lambda value: value):
            value = loss(case.embed(slice(0, B)))
        saved.append(sum(kept))
        value.backward()  # type: ignore[no-untyped-call]
    assert saved[1] < 0.7 * saved[0]
    assert list(checkpointed.model.state_dict()) == names
    for name, expected in plain.results().items():
        assert torch.equal(checkpointed.results()[name], expected), name


def _count(kept: list[int], value: Tensor) -> Tensor:
    kept.append(value.nbytes)
    return value


def test_unmoved_statistics_are_still_those_of_the_batch() -> None:
    norm = nn.BatchNorm1d(3)
    x = torch.randn(8, 3) * 4 + 1
    with unmoved_statistics(norm):
        assert norm(x).mean().abs() < 1e-6
    assert not norm.running_mean.any()
    norm(x)
    assert norm.running_mean.any()
