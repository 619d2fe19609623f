from __future__ import annotations

import pytest
import torch

from deri.training.precision import choose_precision


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "onednn", "expected"),
    [
        (False, False, False, "fp32"),
        (False, False, True, "fp32"),  # oneDNN would convert to fp32 and back
        (True, False, True, "bf16"),
        (False, True, True, "bf16"),
        (True, True, False, "fp32"),  # held to an older instruction set
    ],
)
def test_auto_takes_bf16_where_the_processor_multiplies_in_it(
    avx512_bf16: bool, amx: bool, onednn: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    assert choose_precision("auto", torch.device("cpu")) == expected
    assert choose_precision("fp32", torch.device("cpu")) == "fp32"
