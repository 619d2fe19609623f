"""The ECG encoder of a model as one file for other programs: ONNX, as it is or in int8, and ``torch.export``.

The file takes preprocessed recordings and says in itself how to make them; an ONNX file is also read back here, by ONNX
Runtime alone, and then embeds recordings as its model does.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from copy import copy
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deri._version import __version__
from deri.ecg import ECG
from deri.ecg.leads import LEADS, MIMIC_LEADS
from deri.errors import DeriError, install
from deri.files import SEAL, atomic_path
from deri.models.base import EcgEncoder, EcgTextModel, window_batches
from deri.models.build import load_model
from deri.models.calibration import encoder_digest
from deri.models.device import choose_device
from deri.models.precision import Precision
from deri.models.preprocess import Preprocess
from deri.models.text import portable_name
from deri.recipes import schema
from deri.remote import is_address
from deri.simulate.studies import draw_studies

if TYPE_CHECKING:
    from onnx import ModelProto
    from typing_extensions import Self

ABOUT = "deri"
"""Key of the JSON in an exported file that says what it is, and of ``deri.json`` in a ``.pt2``."""
_FORMAT, _VERSION = "deri-export", 1
_NO_SEAL = "0" * 64
_CLOSE = 1e-4  # an fp32 file that differs by more, in embeddings of unit length, does not compute what the model does
_COMPARED, _CALIBRATED = 32, 96  # simulated recordings
_STREAM = 20  # of simulated patients: no layout has it
_INPUTS = ["ecg", "valid_samples"]


class Deviation(NamedTuple):
    """How far an exported encoder is from its model, in embeddings of unit length of simulated recordings.

    Attributes:
        cosine: the lowest of all recordings.
        median: of the cosines.
        largest: absolute difference of a value.
        recordings: how many there were.
    """

    cosine: float
    median: float
    largest: float
    recordings: int


class ExportedEncoder(EcgEncoder):
    """An ONNX file of ``deri export``: ``encode_ecg`` and its like, on the CPU, with torch's number of threads.

    Attributes:
        about: what the file says of itself: model, preprocessing, precision, digest of the weights.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.about, self._session = _open(Path(path))
        self.config = schema.Model.model_validate(self.about["model"])
        self.preprocess = Preprocess(self.config.signal)

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def compute_in(self, wanted: Precision | Literal["auto"]) -> Self:
        """Raises DeriError unless ``wanted`` is ``fp32``: an exported file has its own number formats."""
        if wanted != "fp32":
            raise DeriError(f"--precision {wanted}: an exported file has its own; use the model it was made of")
        return self

    def ecg_embedding(self, ecg: Tensor, valid_samples: Tensor | None = None) -> Tensor:
        """See :meth:`EcgEncoder.ecg_embedding`; n is ``config.signal.samples``."""
        if valid_samples is None:
            valid_samples = torch.full((len(ecg),), ecg.shape[-1])
        given = dict(zip(_INPUTS, (ecg.numpy(), valid_samples.numpy()), strict=True))
        (embedding,) = self._session.run(None, {one.name: given[one.name] for one in self._session.get_inputs()})
        return torch.from_numpy(embedding)


def load_encoder(name: str | Path, *, device: str | None = "cpu") -> EcgEncoder:
    """What embeds recordings: a file of ``deri export``, or any model that :func:`deri.models.load_model` loads.

    Raises:
        DeriError: it cannot be loaded, or the file is damaged or of another program.
    """
    path = Path(name)
    if is_address(name) and path.suffix == ".onnx":
        raise DeriError(f"{name}: an exported encoder is read from the disk; copy it here first")
    if path.suffix == ".pt2":
        raise DeriError(f"{path}: deri reads .onnx; a .pt2 is for torch.export.load, which may run code of the file")
    if path.suffix != ".onnx":
        return load_model(name, device=device)
    if choose_device(device or "cpu").type != "cpu":
        raise DeriError(f"--device {device}: {path} runs on the CPU; on a GPU use the model it was made of")
    return ExportedEncoder(path)


def export_model(model: EcgTextModel, out: str | Path, *, int8: bool = False) -> Deviation:
    """Write the ECG encoder of a model to ``out``, ``.onnx`` or ``.pt2``, and compare the file with the model.

    Inputs of the file are ``ecg``, (B, 12, samples) float32, preprocessed, and where the model keeps padding out
    ``valid_samples``, (B,) int64. Its output is ``embedding``, (B, d) float32, not normalised. ``int8``: of ``.onnx``.

    Raises:
        DeriError: another suffix, a library is missing, or the fp32 file does not compute what the model does; then
            nothing is left.
    """
    out = Path(out)
    check_export(out, int8)
    model = model.cpu().eval()
    graph, signal = _Graph(model).eval(), model.config.signal
    compared, calibrated = _recordings(signal, 0, _COMPARED), _recordings(signal, 1, _CALIBRATED) if int8 else None
    about = {
        "format": _FORMAT,
        "version": _VERSION,
        "deri_version": __version__,
        "recipe": model.recipe_name,
        "model": _portable(model.config).model_dump(mode="json"),
        "weights": encoder_digest(model),
        "precision": "int8" if int8 else "fp32",
        "preprocessing": {
            **signal.model_dump(),
            "leads": list(MIMIC_LEADS if signal.lead_order == "mimic" else LEADS),
            "unit": "mV",
            "ecg": _ecg_in_words(signal),
            "valid_samples": "samples that hold signal, counted before the zeros that fill up a short recording",
        },
    }
    with atomic_path(out) as path:
        try:
            if out.suffix == ".pt2":
                found = _write_pt2(graph, compared, path, about)
            else:
                path.write_bytes(_onnx(graph, compared, about, calibrated))
                found = ExportedEncoder(path).ecg_embedding(*compared)
        except (DeriError, OSError):
            raise
        except Exception as error:  # of torch and onnxruntime, for a backbone that they cannot write
            cause = str(error).strip().splitlines()[0][:200]
            raise DeriError(
                f"{out} is not written: backbone {model.config.backbone} cannot be exported ({cause})"
            ) from error
        with torch.inference_mode():
            wanted = F.normalize(model.ecg_embedding(*compared), dim=-1)
        found = F.normalize(found, dim=-1)
        largest = float((found - wanted).abs().max())
        cosines = (found * wanted).sum(dim=-1)
        deviation = Deviation(float(cosines.min()), float(cosines.median()), largest, len(wanted))
        if not int8 and not largest <= _CLOSE:
            raise DeriError(
                f"{out} is not written: its embeddings differ from the model's by up to {largest:.1e} (at most "
                f"{_CLOSE:g}); use another version of torch or onnxruntime, or the other of .onnx and .pt2"
            )
    return deviation


def check_export(out: Path, int8: bool) -> None:
    """DeriError, before the work, where ``out`` cannot be made here."""
    if out.suffix not in (".onnx", ".pt2"):
        raise DeriError(f"--out {out}: name a file that ends in .onnx or .pt2")
    if int8 and out.suffix != ".onnx":
        raise DeriError(f"--int8 --out {out}: int8 is made by ONNX Runtime: name a file that ends in .onnx")
    if out.suffix == ".onnx" and not (find_spec("onnx") and find_spec("onnxruntime")):
        raise DeriError(f"--out {out}: needs onnx and onnxruntime: {install('export')}")


class _Graph(nn.Module):
    """What is exported: the inference embedding, with padding masked whether a batch has some or not."""

    def __init__(self, model: EcgTextModel) -> None:
        super().__init__()
        self.model = copy(model)
        self.model._modules = {name: part for name, part in model._modules.items() if name != "text_encoder"}

    def forward(self, ecg: Tensor, valid_samples: Tensor | None = None) -> Tensor:
        """See :func:`export_model`."""
        samples = self.model.config.signal.samples  # a plain number, where that of a traced tensor is none
        mask = None if valid_samples is None else self.model.signal_tokens(valid_samples, samples)
        return self.model.embed_tokens(self.model.ecg_tokens(ecg, mask), mask)

    def arguments(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Those of a batch that the model takes."""
        return batch if self.model.config.mask_padding else batch[:1]


def _recordings(signal: schema.Signal, seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Preprocessed simulated recordings of 10 s and of 6 s, and their valid samples."""
    studies = draw_studies(
        seed, _STREAM, count, more=0.0, mains_hz=50.0, seconds=lambda rng: float(rng.choice([10.0, 10.0, 6.0]))
    )
    ecgs = (ECG(study.tracing.signal, study.tracing.fs) for study in studies)
    ecg, valid = Preprocess(signal)(*next(window_batches(ecgs, signal, 1, count)).content)
    assert valid is not None
    return ecg, valid


def _portable(config: schema.Model) -> schema.Model:
    """The configuration without a path of this machine."""
    text = config.text.model_copy(update={"encoder": portable_name(config.text.encoder)})
    return config.model_copy(update={"text": text})


def _ecg_in_words(signal: schema.Signal) -> str:
    scaled = {
        "millivolt": "each lead in mV minus its mean over the valid samples, clipped to ±10",
        "minmax": "mV minus the smallest value of the recording, divided by the largest minus the smallest",
    }
    return (
        f"12 leads × {signal.samples} samples at {signal.fs:g} Hz, in the order of leads, cut or filled up with zeros; "
        f"{scaled[signal.normalise]}; a missing lead is zeros"
    )


def _write_pt2(graph: _Graph, batch: tuple[Tensor, Tensor], path: Path, about: dict[str, Any]) -> Tensor:
    """Write a program of ``torch.export``; returns what the written one makes of the batch."""
    arguments, size = graph.arguments(batch), torch.export.Dim("batch", min=1)
    with torch.no_grad():
        program = torch.export.export(graph, arguments, dynamic_shapes=tuple({0: size} for _ in arguments))
        with open(path, "wb") as handle:
            torch.export.save(program, handle, extra_files={"deri.json": json.dumps(about)})
        with open(path, "rb") as handle:
            embedding: Tensor = torch.export.load(handle).module()(*arguments)
    return embedding


def _onnx(
    graph: _Graph, batch: tuple[Tensor, Tensor], about: dict[str, Any], calibrated: tuple[Tensor, Tensor] | None
) -> bytes:
    """ONNX; in int8, with ranges of activations from the ``calibrated`` recordings, where they are given.

    It is traced with two recordings, so that a size of a batch that became a constant shows in the comparison.
    """
    import onnx

    arguments, buffer = tuple(one[:2] for one in graph.arguments(batch)), io.BytesIO()
    names = _INPUTS[: len(arguments)]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the tracer, and that its successor exists, which takes ten times as long
        torch.onnx.export(
            graph,
            arguments,
            buffer,  # type: ignore[arg-type]
            input_names=names,
            output_names=["embedding"],
            dynamic_axes={name: {0: "batch"} for name in (*names, "embedding")},
            opset_version=17,
            dynamo=False,
        )
    content = onnx.load_model_from_string(buffer.getvalue())
    if calibrated is not None:
        content = _quantised(content, dict(zip(names, calibrated, strict=False)))
    for key, value in ((ABOUT, json.dumps(about)), (SEAL, _NO_SEAL)):
        content.metadata_props.add(key=key, value=value)
    sealed: bytes = content.SerializeToString()
    return sealed.replace(_NO_SEAL.encode(), hashlib.sha256(sealed).hexdigest().encode())


def _quantised(content: ModelProto, calibrated: dict[str, Tensor]) -> ModelProto:
    """The model with convolutions and linear layers in int8."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            parts = zip(*(value.split(16) for value in calibrated.values()), strict=True)
            self.batches = [dict(zip(calibrated, (value.numpy() for value in part), strict=True)) for part in parts]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.batches.pop() if self.batches else None

    with TemporaryDirectory() as folder:
        plain, path = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(content, plain)
        quant_pre_process(plain, plain, skip_symbolic_shape=True)
        graph = onnx.load(plain).graph
        of_leads = {one.name for one in graph.initializer if len(one.dims) == 3 and one.dims[1] == len(LEADS)}
        quantize_static(
            plain,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            # 8 bits over ±10 mV are steps of 0.08 mV, too coarse for an ECG: the layers that read it stay as they are.
            nodes_to_exclude=[node.name for node in graph.node if of_leads.intersection(node.input)],
            per_channel=True,
            reduce_range=True,  # sums of 8-bit products overflow on processors without VNNI
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        quantised: ModelProto = onnx.load(path)
        return quantised


def _open(path: Path) -> tuple[dict[str, Any], Any]:
    """What an ONNX file of deri says of itself, and a session of ONNX Runtime."""
    try:
        import onnxruntime
    except ImportError:
        raise DeriError(f"{path}: needs onnxruntime: {install('export')}") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    again = "make it again with deri export"
    try:
        content = path.read_bytes()
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except OSError as error:
        raise DeriError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # onnxruntime has its own types
        raise DeriError(f"{path} is damaged or no ONNX file ({str(error).splitlines()[0]}); {again}") from None
    told = session.get_modelmeta().custom_metadata_map
    about = json.loads(told.get(ABOUT, "{}"))
    if about.get("format") != _FORMAT:
        raise DeriError(f"{path} was not made by deri export: it does not say its preprocessing; {again}")
    if about.get("version") != _VERSION:
        raise DeriError(f"{path} is of export format {about.get('version')}, this deri reads {_VERSION}; {again}")
    if hashlib.sha256(content.replace(told[SEAL].encode(), _NO_SEAL.encode())).hexdigest() != told[SEAL]:
        raise DeriError(f"{path} is damaged: its content does not have its checksum; {again}")
    return about, session
