"""Files that say by their name what runs them: ``model.onnx`` for ``ort:model.onnx``."""

from __future__ import annotations

from pathlib import Path

from trt_qat import artifact

PLANS = frozenset({".engine", ".plan", ".trt"})


def spec_of(text: str) -> str:
    """Return a SPEC for a bare path of an ONNX or an engine; any other text as it is.

    An engine is TensorRT for RTX's where its sidecar says so.
    """
    path = Path(text)
    kind, colon, _ = text.partition(":")
    if colon and not path.is_file() and "/" not in kind:
        return text
    if path.suffix == ".onnx":
        return f"ort:{text}"
    if path.suffix in PLANS:
        return f"{'trt-rtx' if _for_rtx(path) else 'trt'}:{text}"
    return text


def _for_rtx(path: Path) -> bool:
    sidecar = artifact.read_sidecar(path)
    if sidecar is None:
        return False
    told = (sidecar.metrics.get("engine") or sidecar.metrics).get("source") or {}
    return bool(told.get("backend") == "rtx" or sidecar.metrics.get("backend") == "rtx")
