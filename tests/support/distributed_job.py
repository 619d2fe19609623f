"""Run by two gloo processes (or one) of a test: gradients of one step on a fixed batch, saved to a file."""

from __future__ import annotations

import sys

import torch
from safetensors.torch import save_file

from deri.models import DERI
from deri.objectives import PairBatch, PairObjective
from deri.recipes import Objective
from deri.training.batches import Batch
from deri.training.distributed import average_gradients, broadcast_weights, join_replicas, synchronise_batchnorm
from deri.training.pretrain import with_view_noise
from support import tiny


def main(out: str, family: str) -> None:
    torch.set_num_threads(1)
    # Dropout is the one draw that depends on the process; without it two processes must equal one.
    model = tiny.model(
        f"model.family={family}", "model.signal.samples=1000", "model.decoder.dropout=0", "model.decoder.drop_path=0",
        "model.view_dropout=0",
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    ecg = torch.randn(8, 12, 1000, generator=generator)
    ids = torch.randint(4, 20, (8, 6), generator=generator)
    report_ids = torch.tensor([0, 1, 2, 0, 3, 1, 4, 5])
    with join_replicas("cpu") as replica:
        if replica.world > 1:
            synchronise_batchnorm(model)
            if replica.rank:  # broadcasting must undo this
                torch.nn.init.zeros_(model.text_projection[0].weight)
        broadcast_weights(model, replica.world)
        model.train()
        part = slice(replica.rank * (8 // replica.world), (replica.rank + 1) * (8 // replica.world))
        batch = Batch(ecg[part], report_ids[part], None, None, ids[part], torch.ones_like(ids[part]))
        batch = with_view_noise(batch, model, torch.Generator().manual_seed(1), replica)
        output = model(batch.ecg, batch.input_ids, batch.attention_mask, view_noise=batch.view_noise)
        losses, _ = PairObjective(Objective())(output, PairBatch(report_ids=batch.report_ids))
        torch.stack(list(losses.values())).sum().backward()
        parameters = [p for p in model.parameters() if p.requires_grad]
        average_gradients(parameters, replica.world)
        if replica.main:
            result = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
            result |= {f"loss/{name}": value.detach() for name, value in losses.items()}
            result |= {f"buffer/{n}": b for n, b in model.named_buffers() if n.startswith("backbone.") and b.dim()}
            assert isinstance(model, DERI) == (family == "deri")
            save_file({name: value.contiguous() for name, value in result.items()}, out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
