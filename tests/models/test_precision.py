from __future__ import annotations

import numpy as np
import pytest
import torch

from deri.models.precision import choose_precision
from support import tiny


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


def test_an_encoder_computes_in_bf16_when_told() -> None:
    model = tiny.model()
    signals = np.random.default_rng(0).normal(size=(3, 12, model.config.signal.samples)).astype(np.float32)
    plain = model.embed_signals(signals, model.config.signal.fs)
    assert model.compute_in("auto").precision in ("fp32", "bf16")
    half = model.compute_in("bf16").embed_signals(signals, model.config.signal.fs)
    assert half.dtype == np.float32
    assert not np.array_equal(half, plain)
    assert (half * plain).sum(axis=1).min() > 0.995  # 8 bits of mantissa
    np.testing.assert_array_equal(model.compute_in("fp32").embed_signals(signals, model.config.signal.fs), plain)
