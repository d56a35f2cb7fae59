"""Configuration of DeepStream's Gst-nvinfer, for what a network is for.

Keys are those of the Gst-nvinfer page of the DeepStream guide ("Gst-nvinfer File Configuration
Specifications").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trt_qat.engine.handover.serving import LABELS, PLAN, batching
from trt_qat.errors import InputError, visible
from trt_qat.recipe.specs import BuildSpec, DataSpec
from trt_qat.runners.protocol import TensorSpec

DETECTOR, CLASSIFIER, SEGMENTER, OTHER = 0, 1, 2, 100
"""Values of ``network-type``; of 100 the tensors themselves are attached to the frames."""

PARSER = "NvDsInferParseCustom"
LIBRARY = "libnvds_infer_parser.so"

_PARSER_COMMENT = (
    "# A parser of the detector's outputs, compiled against nvdsinfer_custom_impl.h:\n"
    "#   bool {parser}(std::vector<NvDsInferLayerInfo> const &outputs,\n"
    "#     NvDsInferNetworkInfo const &network, NvDsInferParseDetectionParams const &parameters,\n"
    "#     std::vector<NvDsInferObjectDetectionInfo> &objects);\n"
    "# outputs, by layerName, each with the batch dimension taken away:\n"
)


def nvinfer_config(
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
    *,
    spec: BuildSpec,
    data: DataSpec,
    classes: int,
    task: str = "classification",
) -> str:
    """Return the configuration of Gst-nvinfer for one image input.

    nvinfer computes ``net-scale-factor * (pixel - offset)`` with pixels of 0 to 255 and one factor
    for all channels, so several values of ``std`` cannot be expressed.

    Args:
        inputs: of the engine: one, ``(N, C, H, W)``.
        outputs: of the engine.
        spec: of the build.
        data: how the recipe prepares images: pixels in [0, 1], less ``mean``, over ``std``.
        classes: number of labels; 0: not known.
        task: kind of the recipe's task. A detector needs a parser of its outputs, whose name and
            library are given; of an embedding or a regression the tensors are handed on.

    Raises:
        InputError: nvinfer cannot prepare such an input, or be told such a name of an output.
    """
    sizes = _image_sizes(inputs)
    if len(set(data.std)) > 1:
        message = (
            f"nvinfer has one scale for all channels and data.std is {list(data.std)}; fold the "
            "normalisation into the first layer, or train with one std"
        )
        raise InputError(message)
    scale = 1.0 / (255.0 * (data.std[0] if data.std else 1.0))
    own, more = _by_task(task, outputs, classes)
    lines = {
        "gpu-id": 0,
        "gie-unique-id": 1,
        "model-engine-file": f"../triton/{PLAN}",
        "labelfile-path": LABELS,
        "batch-size": max(batching(spec, inputs), 1),
        # 1 is INT8: of a network that nvinfer would build itself; a given engine is what it is.
        "network-mode": 1,
        "process-mode": 1,
        "model-color-format": 2 if sizes[0] == 1 else 0,
        "infer-dims": ";".join(map(str, sizes)),
        "net-scale-factor": f"{scale:.10g}",
        **_offsets(data.mean, int(sizes[0])),
        "input-tensor-from-meta": 0,
        "output-blob-names": listed(outputs, "output"),
        **own,
    }
    text = "[property]\n" + "".join(f"{key}={value}\n" for key, value in lines.items())
    return text + more


def _by_task(
    task: str, outputs: Mapping[str, TensorSpec], classes: int
) -> tuple[dict[str, Any], str]:
    """Return keys of ``[property]``, and what follows it."""
    if task == "classification":
        own = {"network-type": CLASSIFIER, "num-detected-classes": classes}
        return own | {"classifier-threshold": 0.0}, ""
    if task == "segmentation":
        own = {"network-type": SEGMENTER, "num-detected-classes": classes}
        return own | {"segmentation-threshold": 0.0}, ""
    if task == "detection":
        shapes = "".join(
            f"#   {name}: ({visible(', '.join(map(str, tensor.shape[1:])))}) {tensor.dtype}\n"
            for name, tensor in outputs.items()
        )
        detector: dict[str, Any] = {
            "network-type": DETECTOR,
            "num-detected-classes": max(classes, 1),
            "cluster-mode": 2,  # non-maximum suppression by nvinfer
            "parse-bbox-func-name": PARSER,
            "custom-lib-path": LIBRARY,
        }
        thresholds = "[class-attrs-all]\nnms-iou-threshold=0.5\npre-cluster-threshold=0.25\n"
        thresholds += "topk=100\n"
        return detector, "\n" + thresholds + "\n" + _PARSER_COMMENT.format(parser=PARSER) + shapes
    return {"network-type": OTHER, "output-tensor-meta": 1}, ""


def listed(names: Iterable[str], what: str) -> str:
    """Return names as a list of a key: parted by semicolons, as GLib's key files have it.

    A name from an ONNX or a file of labels may hold anything, a line break and another key after
    it among it.

    Raises:
        InputError: a name holds what would part the list or end its line.
    """
    names = list(names)
    for name in names:
        if not name.isprintable() or set(name) & set(";\\") or name != name.strip() or not name:
            message = (
                f"{what} {visible(name)!r} cannot stand in a list of its configuration: allowed "
                "are printable characters but ; and \\, without a space at an end"
            )
            raise InputError(message)
    return ";".join(names)


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
