"""Writing an ONNX graph, with the weights of a large one beside it, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir as ir

from trt_qat.atomic import atomic_path, followed
from trt_qat.errors import ExportMismatch, first_line
from trt_qat.graph import large
from trt_qat.graph.large import locations, remove_data_of_others


def save(graph: ir.Model, target: Path, check: Callable[[Path], None]) -> None:
    """Write the graph, and its weights beside it where protobuf's limit asks for that.

    ``check`` is called with the whole file under its temporary name; where it raises, nothing is
    left of it.

    The name of the weights' file holds their digest, so that the rename of the graph is the one
    moment at which the new pair takes the place of the old one.
    """
    target = followed(target)  # weights lie beside the graph itself, not beside a link to it
    data = _data_name(graph, target)
    try:
        with atomic_path(target) as partial:
            if data is None:
                ir.save(graph, partial)
            else:
                with atomic_path(target.with_name(data)) as weights:
                    ir.save(graph, partial, external_data=weights.name)
                _refer(partial, data)
            onnx.checker.check_model(str(partial))
            check(partial)
    except onnx.checker.ValidationError as error:
        message = f"export: onnx.checker refuses {target.name}: {first_line(error)}"
        raise ExportMismatch(message) from error
    finally:
        remove_data_of_others(target)


def _data_name(graph: ir.Model, target: Path) -> str | None:
    """Return the name of the file for the weights; None where they fit into the graph's."""
    values = [v.const_value for v in graph.graph.initializers.values() if v.const_value]
    if sum(value.nbytes for value in values) <= large.LARGE_BYTES:
        return None
    return large.data_name(target, (value.tobytes() for value in values))


def _refer(path: Path, data: str) -> None:
    """Let every external weight of an ONNX file be in ``data``, whose bytes are not read."""
    proto = onnx.load(path, load_external_data=False)
    for entry in locations(proto):
        entry.value = data
    onnx.save(proto, path)
