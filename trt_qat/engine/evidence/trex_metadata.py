"""What trt-engine-explorer keeps of a run of trtexec, beside its layers and times.

Its ``parse_trtexec_log.py`` writes ``*.build.metadata.json`` (``model_options``,
``build_options``) and ``*.profile.metadata.json`` (``performance_summary``,
``inference_options``, ``device_information``); its ``device_info.py`` a list of devices with
``Name`` and ``ComputeCapability``. A row of the summary is min, max, mean, median in milliseconds,
and the percentiles that the release prints: 99 up to 8.4, then 90, 95 and 99.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trt_qat.engine.evidence.evidence import document
from trt_qat.engine.evidence.layer_info import METADATA, LayerInfo
from trt_qat.engine.evidence.performance import KEYS
from trt_qat.errors import InputError

_TABLES = frozenset({
    *("model_options", "build_options", "system_options", "reporting_options"),
    *("inference_options", "performance_summary", "device_information"),
})  # fmt: skip
_RANKS = {5: ("p50", "p99"), 7: ("p50", "p90", "p95", "p99")}


def is_metadata(loaded: Any) -> bool:
    """Tell whether JSON is such a file."""
    if isinstance(loaded, list):
        return bool(loaded) and isinstance(loaded[0], Mapping) and "ComputeCapability" in loaded[0]
    return isinstance(loaded, Mapping) and bool(_TABLES & loaded.keys())


def read_metadata(loaded: Any, name: str, source: dict[str, Any]) -> dict[str, Any]:
    """Return the document of such a file: ``facts``, ``performance`` and ``options``.

    Raises:
        InputError: it is damaged.
    """
    try:
        devices = loaded if isinstance(loaded, list) else []
        tables = {} if devices else {key: dict(table) for key, table in loaded.items()}
        facts = _device(devices[0]) if devices else _selected(tables.pop("device_information", {}))
        measured = _performance(tables.pop("performance_summary", {}))
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        message = f"{name}: metadata of a run of trtexec that are damaged ({error!r})"
        raise InputError(message) from error
    options = {key: str(value) for table in tables.values() for key, value in table.items()}
    found = document(LayerInfo(METADATA, detailed=False), None, source)
    return found | {"facts": facts, "performance": measured, "options": options}


def _device(told: Mapping[str, Any]) -> dict[str, str]:
    capability = ".".join(str(int(part)) for part in told["ComputeCapability"])
    return {"gpu": str(told["Name"]), "compute_capability": capability}


def _selected(told: Mapping[str, Any]) -> dict[str, str]:
    keys = {"Selected Device": "gpu", "Compute Capability": "compute_capability"}
    return {ours: str(told[theirs]) for theirs, ours in keys.items() if theirs in told}


def _performance(told: Mapping[str, Any]) -> dict[str, float]:
    measured = {"throughput_qps": float(told["Throughput"])} if "Throughput" in told else {}
    for title, key in KEYS.items():
        if title in told:  # min, max and mean stand before the median
            row = [float(value) for value in told[title]]
            ranks = _RANKS.get(len(row), ("p50",))
            measured |= {f"{key}_{rank}": ms for rank, ms in zip(ranks, row[3:], strict=False)}
    return measured
