"""Configurations of the two servers that engines go to: Triton and DeepStream's nvinfer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from trt_qat.engine import compat
from trt_qat.engine.build.options import profiles
from trt_qat.recipe.specs import BuildSpec
from trt_qat.runners.protocol import TensorSpec

# ModelConfig's DataType (Triton, model_config.proto).
_TRITON = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "int8": "TYPE_INT8",
    "uint8": "TYPE_UINT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "bool": "TYPE_BOOL",
}
LABELS = "labels.txt"
PLAN = "model.plan"
ONNX = "model.onnx"


def batching(spec: BuildSpec, inputs: Mapping[str, TensorSpec]) -> int:
    """Return the largest batch of the engine's first profile; 0 where the batch is fixed.

    Triton batches only along a dynamic first dimension that all inputs share.
    """
    made = profiles(spec, inputs)
    if not made or not all(isinstance(tensor.shape[0], str) for tensor in inputs.values()):
        return 0
    return min(made[0][name].max[0] for name in inputs)


def triton_config(
    name: str,
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
    *,
    spec: BuildSpec,
    labels: bool,
    version: compat.Version = compat.STRONG_SINCE,
    platform: str = "tensorrt_plan",
) -> str:
    """Return ``config.pbtxt`` of a model in a Triton model repository.

    Args:
        name: of the model, which is that of its folder.
        inputs: of the engine.
        outputs: of the engine.
        spec: of the build; its profile decides the largest batch.
        labels: the first output has a file of labels.
        version: ``(major, minor)`` of the TensorRT that builds the engine.
        platform: ``tensorrt_plan``, or ``onnxruntime_onnx`` for the ONNX itself.
    """
    engine = platform == "tensorrt_plan"
    if engine:
        inputs, outputs = (_as_built(each, version) for each in (inputs, outputs))
    largest = batching(spec, inputs)
    blocks = [
        f'name: "{name}"',
        f'platform: "{platform}"',
        f'default_model_filename: "{PLAN if engine else ONNX}"',
        f"max_batch_size: {largest}",
        _tensors("input", inputs, bool(largest), None),
        _tensors("output", outputs, bool(largest), LABELS if labels else None),
        f"instance_group [ {{ count: 1 kind: {'KIND_GPU' if engine else 'KIND_AUTO'} }} ]",
    ]
    if largest > 1:
        opt = min(profiles(spec, inputs)[0][name].opt[0] for name in inputs)
        preferred = ", ".join(map(str, sorted({opt, largest})))
        blocks.append(
            f"dynamic_batching {{ preferred_batch_size: [ {preferred} ] "
            "max_queue_delay_microseconds: 100 }"
        )
    return "\n".join(blocks) + "\n"


def _as_built(tensors: Mapping[str, TensorSpec], version: compat.Version) -> dict[str, TensorSpec]:
    if not compat.narrows_int64(version):
        return dict(tensors)
    kinds = {"int64": "int32"}
    return {n: replace(t, dtype=kinds.get(t.dtype, t.dtype)) for n, t in tensors.items()}


def _tensors(
    kind: str, tensors: Mapping[str, TensorSpec], batched: bool, labels: str | None
) -> str:
    entries = []
    for at, (name, tensor) in enumerate(tensors.items()):
        shape = tensor.shape[1:] if batched else tensor.shape
        dims = ", ".join(str(size) if isinstance(size, int) else "-1" for size in shape)
        # Triton allows no empty dims; one number a sample is [ 1 ] that is reshaped to none.
        what = f"dims: [ {dims} ]" if shape else "dims: [ 1 ] reshape: { shape: [ ] }"
        label = f' label_filename: "{labels}"' if labels and at == 0 else ""
        kind_of = _TRITON[tensor.dtype]
        entries.append(f'  {{ name: "{_quoted(name)}" data_type: {kind_of} {what}{label} }}')
    return f"{kind} [\n" + ",\n".join(entries) + "\n]"


def _quoted(name: str) -> str:
    """Escape a name for protobuf's text format, in which a string ends with its line."""
    return "".join(
        f"\\{c}"
        if c in '"\\'
        else c
        if c.isprintable()
        else "".join(f"\\{byte:03o}" for byte in c.encode("utf-8", "surrogatepass"))
        for c in name
    )
