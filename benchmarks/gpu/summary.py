"""One page of what the cells say: builds, ratios, numerics, predictions, probes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.gpu.predicted import FIELDS

Cells = Mapping[str, Mapping[str, Any]]
GOOD_DB, MARGIN_DB = 30.0, 10.0
"""Above the first an output is sound; below what rounding does by more than the second, suspect."""
BOUNDS = {("dense", "implicit"): 1.0, ("dense", "fp16"): 1.0}
"""Pairs of which the issue asks a ratio of at most this (implicit), or below it (FP16)."""


def summarise(cells: Cells) -> dict[str, Any]:
    """Return the counts and tables of all cells."""
    return {
        "status": dict(sorted(Counter(entry["status"] for entry in cells.values()).items())),
        "not_done": {
            key: entry.get("error", entry["status"])
            for key, entry in cells.items()
            if entry["status"] != "done"
        },
        "builds": list(_builds(cells)),
        "ratios": list(_ratios(cells)),
        "rebuilds": list(_rebuilds(cells)),
        "prediction": _prediction(cells),
    }


def _done(cells: Cells, kind: str) -> Iterator[tuple[list[str], Any]]:
    for key, entry in cells.items():
        parts = key.split(":")
        if parts[0] == kind and entry["status"] == "done":
            yield parts, entry["is"]


def _builds(cells: Cells) -> Iterator[dict[str, Any]]:
    for (_, model, variant, *batch), found in _done(cells, "build"):
        sparsity = found["sparsity"] or {}
        worst = [each["against_onnxruntime"]["sqnr_db"] for each in found["compare"]]
        floor = [each["rounding_sqnr_db"] for each in found["compare"]]
        suspect = any(map(_is_suspect, worst, floor))
        yield {
            "model": model,
            "variant": variant,
            "batch": batch[0] if batch else "range",
            "seconds": found["build_seconds"],
            "layers": found["census"]["layers"],
            "precision": found["census"]["precision"],
            "int8_in_int8_out": found["census"]["int8_in_int8_out"],
            "int8_not_told": found["census"].get("int8_not_told"),
            "found": sparsity.get("found"),
            "chose": sparsity.get("chose"),
            "sqnr_db": min((each for each in worst if each is not None), default=None),
            "rounding_sqnr_db": min((each for each in floor if each is not None), default=None),
            "suspect": suspect,
            "skipped_tactics": found["skipped_tactics"],
        }


def _is_suspect(sqnr_db: float | None, rounding_db: float | None) -> bool:
    """Tell whether an output is further from onnxruntime than rounding its inputs explains."""
    if sqnr_db is None:
        return False
    floor = GOOD_DB if rounding_db is None else min(GOOD_DB, rounding_db - MARGIN_DB)
    return sqnr_db < floor


def _ratios(cells: Cells) -> Iterator[dict[str, Any]]:
    for (_, model, *batch), found in _done(cells, "time"):
        for pair in found["pairs"]:
            bound = BOUNDS.get((pair["a"], pair["b"]))
            yield {
                "model": model,
                "batch": batch[0] if batch else "",
                "a": pair["a"],
                "b": pair["b"],
                "p50_ratio": pair["p50_ratio"],
                "ci95": pair["ci95"],
                "verdict": pair["verdict"],
                "wanted": pair["wanted"],
                "met": None if bound is None else pair["p50_ratio"] <= bound,
                "p50_ms": pair["p50_ms"],
            }


def _rebuilds(cells: Cells) -> Iterator[dict[str, Any]]:
    for (_, model, *_), found in _done(cells, "rebuild"):
        rounds = found["rounds"]
        yield {
            "model": model,
            "found": [(each["sparsity"] or {}).get("found") for each in rounds],
            "chose": [(each["sparsity"] or {}).get("chose") for each in rounds],
            "kernels": [len(each["sparse_kernels"]) for each in rounds],
            "p50_ratio": [each["over_dense_kernels"]["p50_ratio"] for each in rounds],
            "ci95": [each["over_dense_kernels"]["ci95"] for each in rounds],
        }


def _prediction(cells: Cells) -> dict[str, Any]:
    """Return how often preflight was right of our engines, and every layer where it was not."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in FIELDS}
    wrong = []
    for (_, model, variant, *_), found in _done(cells, "build"):
        if variant not in ("dense", "sparse", "stock"):
            continue
        for name in FIELDS:
            counts[name].update(found["prediction"]["agreement"].get(name, {}))
        for row in found["prediction"]["rows"]:
            seen, predicted = row["seen"] or {}, row["predicted"]
            fields = [f for f in FIELDS if seen.get(f) is not None and seen[f] != predicted[f]]
            if fields:
                kept = {key: row[key] for key in ("layer", "op", "why", "engine_layer", "tactic")}
                wrong.append({"model": model, "variant": variant, "fields": fields, **kept})
    return {"agreement": {name: dict(count) for name, count in counts.items()}, "wrong": wrong}


def page(machine: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Return the summary as Markdown."""
    gpu = machine["gpus"][0]["name"] if machine["gpus"] else "no GPU"
    status = ", ".join(f"{count} {what}" for what, count in found["status"].items())
    counts = (
        (name, ", ".join(f"{count} {what}" for what, count in sorted(each.items())))
        for name, each in found["prediction"]["agreement"].items()
    )
    lines = [f"# TensorRT {machine['tensorrt']} on {gpu}", "", f"Cells: {status}.", ""]
    lines += _table(
        ("model", "batch", "pair", "p50 ratio", "95 %", "wanted", "met"),
        map(_ratio_cells, found["ratios"]),
    )
    lines += _table(
        ("model", "rebuilt", "found", "chose", "sparse kernels", "p50 ratio"),
        map(_rebuild_cells, found["rebuilds"]),
    )
    lines += _table(
        (
            *("model", "variant", "batch", "s", "layers", "INT8 in and out", "found", "chose"),
            *("SQNR dB to onnxruntime", "of FP16 inputs", "numerics"),
        ),
        map(_build_cells, found["builds"]),
    )
    lines += _table(("preflight against the inspector", "layers"), counts)
    lines += _table(("not done", "why"), found["not_done"].items())
    return "\n".join(lines)


def _ratio_cells(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        row["model"],
        row["batch"],
        f"{row['a']} / {row['b']}",
        f"{row['p50_ratio']:.3f}",
        "{:.3f} to {:.3f}".format(*row["ci95"]),
        row["wanted"],
        {None: "", True: "yes", False: "no"}[row["met"]],
    )


def _rebuild_cells(row: Mapping[str, Any]) -> tuple[Any, ...]:
    lists = (_joined(row[key]) for key in ("found", "chose", "kernels"))
    ratios = _joined(f"{each:.3f}" for each in row["p50_ratio"])
    return (row["model"], len(row["found"]), *lists, ratios)


def _build_cells(row: Mapping[str, Any]) -> tuple[Any, ...]:
    keys = ("model", "variant", "batch", "seconds", "layers")
    return (
        *(row[key] for key in keys),
        _int8_cell(row),
        *(_or_dash(row[key]) for key in ("found", "chose")),
        *(_decibel(row[key]) for key in ("sqnr_db", "rounding_sqnr_db")),
        "suspect" if row["suspect"] else "sound",
    )


def _int8_cell(row: Mapping[str, Any]) -> str:
    """Return how many layers are INT8 in and out, and how many do not tell."""
    hidden = row["int8_not_told"]
    return f"{_or_dash(row['int8_in_int8_out'])}{f' ({hidden} not told)' if hidden else ''}"


def _table(head: tuple[str, ...], rows: Any) -> list[str]:
    body = [
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
        for row in rows
    ]
    if not body:
        return []
    rule = "|" + " --- |" * len(head)
    return ["| " + " | ".join(head) + " |", rule, *body, ""]


def _decibel(value: float | None) -> str:
    return "equal" if value is None else f"{value:.1f}"


def _joined(values: Any) -> str:
    return ", ".join(str(_or_dash(value)) for value in values)


def _or_dash(value: Any) -> Any:
    return "-" if value is None else value
