"""Configurations of the two servers that engines go to: Triton and DeepStream's nvinfer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from trt_qat.engine import compat
from trt_qat.engine.build.options import profiles
from trt_qat.errors import InputError
from trt_qat.recipe.specs import BuildSpec, DataSpec
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
) -> str:
    """Return ``config.pbtxt`` of a model in a Triton model repository.

    Args:
        name: of the model, which is that of its folder.
        inputs: of the engine.
        outputs: of the engine.
        spec: of the build; its profile decides the largest batch.
        labels: the first output has a file of labels.
        version: ``(major, minor)`` of the TensorRT that builds the engine.
    """
    inputs, outputs = (_as_built(each, version) for each in (inputs, outputs))
    largest = batching(spec, inputs)
    blocks = [
        f'name: "{name}"',
        'platform: "tensorrt_plan"',
        f'default_model_filename: "{PLAN}"',
        f"max_batch_size: {largest}",
        _tensors("input", inputs, bool(largest), None),
        _tensors("output", outputs, bool(largest), LABELS if labels else None),
        "instance_group [ { count: 1 kind: KIND_GPU } ]",
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
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        kind_of = _TRITON[tensor.dtype]
        entries.append(f'  {{ name: "{quoted}" data_type: {kind_of} {what}{label} }}')
    return f"{kind} [\n" + ",\n".join(entries) + "\n]"


def nvinfer_config(
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
    *,
    spec: BuildSpec,
    data: DataSpec,
    classes: int,
) -> str:
    """Return the configuration of DeepStream's Gst-nvinfer for an image classifier.

    nvinfer computes ``net-scale-factor * (pixel - offset)`` with pixels of 0 to 255 and one factor
    for all channels, so several values of ``std`` cannot be expressed.

    Args:
        inputs: of the engine: one, ``(N, C, H, W)``.
        outputs: of the engine.
        spec: of the build.
        data: how the recipe prepares images: pixels in [0, 1], less ``mean``, over ``std``.
        classes: number of labels.

    Raises:
        InputError: nvinfer cannot prepare such an input.
    """
    sizes = _image_sizes(inputs)
    if len(set(data.std)) > 1:
        message = (
            f"nvinfer has one scale for all channels and data.std is {list(data.std)}; fold the "
            "normalisation into the first layer, or train with one std"
        )
        raise InputError(message)
    scale = 1.0 / (255.0 * (data.std[0] if data.std else 1.0))
    lines = {
        "gpu-id": 0,
        "gie-unique-id": 1,
        "model-engine-file": f"../triton/{PLAN}",
        "labelfile-path": LABELS,
        "batch-size": max(batching(spec, inputs), 1),
        # 1 is INT8: of a network that nvinfer would build itself; a given engine is what it is.
        "network-mode": 1,
        "network-type": 1,
        "num-detected-classes": classes,
        "process-mode": 1,
        "model-color-format": 2 if sizes[0] == 1 else 0,
        "infer-dims": ";".join(map(str, sizes)),
        "net-scale-factor": f"{scale:.10g}",
        **_offsets(data.mean, int(sizes[0])),
        "input-tensor-from-meta": 0,
        "output-blob-names": ";".join(outputs),
        "classifier-threshold": 0.0,
    }
    return "[property]\n" + "".join(f"{key}={value}\n" for key, value in lines.items())


def _image_sizes(inputs: Mapping[str, TensorSpec]) -> tuple[int | str, ...]:
    """Return channels, height and width of the one input.

    Raises:
        InputError: there are several, or it is no image of fixed size.
    """
    if len(inputs) != 1:
        message = f"nvinfer feeds one image input; the engine has {sorted(inputs)}"
        raise InputError(message)
    ((name, tensor),) = inputs.items()
    sizes = tensor.shape[1:]
    fixed = all(isinstance(size, int) for size in sizes)
    if len(sizes) != 3 or not fixed or sizes[0] not in (1, 3):
        shape = ", ".join(map(str, tensor.shape))
        message = f"nvinfer feeds (N, 1 or 3, H, W) of fixed size; input {name!r} is ({shape})"
        raise InputError(message)
    return sizes


def _offsets(mean: Sequence[float], channels: int) -> dict[str, str]:
    if not mean:
        return {}
    values = list(mean) * channels if len(mean) == 1 else list(mean)
    return {"offsets": ";".join(f"{255.0 * value:.10g}" for value in values)}
