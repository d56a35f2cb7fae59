"""Ranges from one form into another: calibration cache, ``ranges.json``, Q/DQ in an ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from trt_qat.data import calibration_cache
from trt_qat.data.calibration_cache import CODE_MAX, CalibrationCache
from trt_qat.data.ranges import Ranges
from trt_qat.errors import DataError, InputError
from trt_qat.graph import large
from trt_qat.graph.load import embed_weights, load_graph
from trt_qat.mend.take_out import TakenOut, take_out
from trt_qat.mend.take_over import take_over

DEFAULT_RELEASE = "8.6.1"
DEFAULT_CALIBRATOR = "EntropyCalibration2"


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        out: the file.
        tensors: how many have a range in it.
        without: tensors that have none: of the network, or of the cache.
        unused: tensors of the source that the ONNX does not have.
        layers: weighted layers that are INT8 in the ONNX written; None: none was.
        left_float: the others, each with the reason.
        float_onnx: the network without Q/DQ, where one was asked for.
    """

    out: str
    tensors: int
    without: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    layers: int | None = None
    left_float: tuple[tuple[str, str], ...] = ()
    float_onnx: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the JSON document of ``trt-qat ranges --json``."""
        return {"schema": "trt-qat ranges file 1", **vars(self)}


@dataclass(frozen=True)
class _Source:
    """Ranges by tensor, or by quantizer of ours until an ONNX says which tensor that is."""

    amax: Mapping[str, float]
    algorithm: str
    without: tuple[str, ...] = ()
    network: TakenOut | None = None


def convert(
    source: Path,
    out: Path,
    *,
    onnx: Path | None = None,
    float_out: Path | None = None,
    release: str = DEFAULT_RELEASE,
    calibrator: str = DEFAULT_CALIBRATOR,
) -> Converted:
    """Write ranges in another form; the name of ``out`` says which.

    Args:
        source: a calibration cache, a ``ranges.json``, or a QDQ ONNX.
        out: ``.onnx`` (Q/DQ in ``onnx``), ``.json`` (``ranges.json``), else a calibration cache.
        onnx: for an ONNX: the float network that was calibrated. For ``.json`` and caches: a QDQ
            ONNX of ours, which says what tensor each of our quantizers is of.
        float_out: where the network of a QDQ source is written without Q/DQ, beside the cache.
        release: TensorRT that a cache is for.
        calibrator: that its header names.

    Raises:
        InputError: a file is missing, damaged or of another network, or ``out`` is the source.
    """
    if out.resolve() in {path.resolve() for path in (source, onnx) if path is not None}:
        message = f"{out}: is read, so it is not written over; give another name"
        raise InputError(message)
    told = _read(source)
    if out.suffix == ".onnx":
        return _to_onnx(told, onnx, out)
    told = _renamed(told, onnx, to_quantizers=out.suffix == ".json")
    if out.suffix == ".json":
        Ranges(told.algorithm, dict(told.amax)).save(out)
        return Converted(str(out), len(told.amax), told.without)
    scales = {name: value / CODE_MAX for name, value in told.amax.items()}
    CalibrationCache(release, calibrator, scales).save(out)
    if float_out is not None:
        _write_float(told.network, float_out)
    written = None if float_out is None else str(float_out)
    return Converted(str(out), len(scales), told.without, float_onnx=written)


def _read(source: Path) -> _Source:
    if source.suffix == ".onnx":
        found = take_out(embed_weights(load_graph(source)))
        amax = {name: CODE_MAX * scale for name, scale in found.scales.items()}
        return _Source(amax, "unknown", found.without, found)
    if source.suffix == ".json":
        ranges = Ranges.load(source)
        return _Source(ranges.amax, ranges.algorithm)
    cache = calibration_cache.load(source)
    return _Source(cache.amax, cache.ranges().algorithm, cache.without)


def _to_onnx(told: _Source, onnx: Path | None, out: Path) -> Converted:
    if onnx is None:
        message = "--onnx MODEL.onnx is missing: the float network that Q/DQ are written into"
        raise InputError(message)
    model = embed_weights(load_graph(onnx))
    try:
        made = take_over(model, told.amax)
    except InputError as error:
        message = f"{onnx}: {error}"
        raise type(error)(message) from error
    _write(made.model, out)
    used = len(told.amax) - len(made.unused)
    return Converted(
        str(out), used, told.without, made.unused, len(made.quantized), made.left_float
    )


def _renamed(told: _Source, onnx: Path | None, *, to_quantizers: bool) -> _Source:
    """Return ranges by quantizer of ours or by tensor, as a QDQ ONNX of ours tells."""
    network = told.network
    if onnx is not None:
        network = take_out(embed_weights(load_graph(onnx)))
    if network is None:
        return told
    tensors = network.quantizers
    if to_quantizers:
        amax = {q: told.amax[t] for q, t in tensors.items() if t in told.amax}
        missing = tuple(t for t in tensors.values() if t not in told.amax)
    elif told.network is not None:
        return told
    else:
        amax = {t: told.amax[q] for q, t in tensors.items() if q in told.amax}
        missing = tuple(q for q in tensors if q not in told.amax)
    if not amax:
        message = (
            f"{onnx}: none of its quantizers ({', '.join(list(tensors)[:3])}) is one of the ranges "
            f"({', '.join(list(told.amax)[:3])}); they are of another network"
        )
        raise DataError(message)
    return _Source(amax, told.algorithm, (*told.without, *missing), network)


def _write_float(network: TakenOut | None, path: Path) -> None:
    if network is None:
        message = f"{path}: only a QDQ ONNX has Q/DQ to take out; give one as the source"
        raise InputError(message)
    _write(network.model, path)


def _write(model: ModelProto, path: Path) -> None:
    large.write(model, path)
