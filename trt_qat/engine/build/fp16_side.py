"""The network of a QDQ ONNX without its Q/DQ, in FP16 through the same compiler.

The compiler of TensorRT for RTX 1.7 lets an INT8 convolution write float and quantizes behind it,
so that INT8 can move more bytes than FP16; what a target gains is asked of the compiler itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trt_qat.engine.aot.answer import Job
from trt_qat.engine.aot.child import Compiler
from trt_qat.engine.build.typed import typed_onnx
from trt_qat.engine.evidence.listing import Listing, listing_of
from trt_qat.engine.evidence.sides import better
from trt_qat.errors import CheckFailed, GraphError, InputError
from trt_qat.graph import functions, large, load
from trt_qat.mend.take_out import take_out
from trt_qat.runners.protocol import Feed


def side_by_side(
    compiler: Compiler,
    int8: Listing,
    onnx: Path,
    job: Job,
    *,
    keep: Sequence[str] = (),
    feeds: Sequence[Feed] = (),
    timeout_s: float,
) -> dict[str, Any]:
    """Build the FP16 form of a network that was built in INT8, and set what both move in a row.

    Args:
        compiler: that built the INT8 form.
        int8: what it listed, with shapes fixed.
        onnx: the QDQ ONNX, its remainder as it was exported.
        job: how the INT8 form was built: targets, flags, profiles; shapes are held at opt.
        keep: node names, patterns of them, or operators that stay FP32.
        feeds: real inputs to measure on what FP16 can hold.
        timeout_s: of the build.

    Returns:
        ``int8`` and ``fp16``: as of `Listing.traffic`; ``better``: ``int8``, ``fp16`` or None; and
        ``why``: why there is no FP16 form, with ``fp16`` None.

    Raises:
        CompilerDied: as of `Compiler.build`.
    """
    told: dict[str, Any] = {"int8": int8.traffic(), "fp16": None, "better": None, "why": ""}
    folder = job.log.parent
    try:
        read = _halved(onnx, folder, keep, feeds)
    except (GraphError, InputError, CheckFailed) as error:
        return told | {"why": str(error).replace(f"{folder}/", "")}
    fixed = [{name: [shape[1]] * 3 for name, shape in each.items()} for each in job.profiles[:1]]
    asked = replace(
        job, onnx=read, plan=folder / "fp16.plan", log=folder / "fp16.log", profiles=fixed
    )
    answer = compiler.build(asked, timeout_s=timeout_s)
    listing = listing_of(asked.log.read_text(encoding="utf-8")) if answer.built else None
    if listing is None:
        said = "; ".join(map(str, answer.refusals[:1])) or "nothing is listed"
        return told | {"why": f"the FP16 form is not built: {said}"}
    fp16 = listing.traffic()
    return told | {"fp16": fp16, "better": better(told["int8"], fp16)}


def _halved(onnx: Path, folder: Path, keep: Sequence[str], feeds: Sequence[Feed]) -> Path:
    model = load.embed_weights(functions.without_functions(load.load_graph(onnx)))
    bare = folder / "float.onnx"
    large.write(take_out(model).model, bare)
    return typed_onnx(bare, folder / "fp16.onnx", keep, feeds)
