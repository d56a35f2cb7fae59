"""What other tools make of a float network by their own defaults, as functions from inputs."""

from __future__ import annotations

import contextlib
import copy
import io
import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

Answer = Callable[[torch.Tensor], torch.Tensor]

ORT: dict[str, dict[str, Any]] = {
    "stock (MinMax, per tensor)": {"method": "MinMax", "per_channel": False},
    "MinMax, per channel, symmetric": {"method": "MinMax", "per_channel": True},
    "Entropy, per channel, symmetric": {"method": "Entropy", "per_channel": True},
}


def modelopt(model: nn.Module, batches: list[torch.Tensor]) -> nn.Module:
    """Quantize a copy by ModelOpt's INT8_DEFAULT_CFG."""
    import modelopt.torch.quantization as mtq

    def run(fresh: nn.Module) -> None:
        with torch.no_grad():
            for batch in batches:
                fresh(batch)

    with contextlib.redirect_stdout(io.StringIO()):
        found: nn.Module = mtq.quantize(copy.deepcopy(model), mtq.INT8_DEFAULT_CFG, run)
    return found


def onnxruntime(model: nn.Module, batches: list[torch.Tensor], options: dict[str, Any]) -> Answer:
    """Quantize the exported network by onnxruntime's quantize_static."""
    import onnxruntime as ort
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            # Its histograms want batches of one size.
            size = math.gcd(*map(len, batches))
            self.left = iter(torch.split(torch.cat(batches), size))

        def get_next(self) -> Any:
            batch = next(self.left, None)
            return None if batch is None else {"x": batch.numpy()}

    folder = Path(tempfile.mkdtemp(prefix="accuracy-"))
    path, ready, made = (folder / name for name in ("float.onnx", "ready.onnx", "int8.onnx"))
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        model,
        (batches[0][:2],),
        str(path),
        input_names=["x"],
        dynamo=True,
        dynamic_shapes=({0: batch},),
        verbose=False,
        external_data=False,
    )
    quant_pre_process(str(path), str(ready), skip_symbolic_shape=True)
    symmetric = {"ActivationSymmetric": options["per_channel"], "WeightSymmetric": True}
    quantize_static(
        str(ready),
        str(made),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=options["per_channel"],
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[options["method"]],
        extra_options=symmetric,
    )
    session_options = ort.SessionOptions()
    # Fused integer kernels saturate on CPUs without VNNI; unfused they compute what the file says.
    session_options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = ort.InferenceSession(str(made), session_options, providers=["CPUExecutionProvider"])
    shutil.rmtree(folder)
    return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
