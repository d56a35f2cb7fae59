"""The QDQ graph of every reference architecture, against the text in ``tests/golden``.

A diff here is a change in where the pairs stand, and has to be looked at: after that,
``pytest tests/qat/test_golden.py -m "" --regen`` writes all the files anew. The texts are
`trt_qat.graph.text.dump` with what repeats left out; they hold no weight and no scale.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.models import REFERENCE
from trt_qat.graph.load import load_graph
from trt_qat.graph.text import dump
from trt_qat.qat.export import export
from trt_qat.qat.quantize import quantize

GOLDEN = Path(__file__).parent.parent / "golden"
QUICK = ("two_inputs", "functional")
NAMES = [
    pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in REFERENCE
]
_DEFAULTS = re.compile(
    r"(auto_pad=NOTSET|ceil_mode=0|dilations=\[1(,1)*\]|group=1"
    r"|storage_order=0|alpha=1|beta=1|transA=0|allowzero=1|stash_type=1)(, |(?=\}))"
)


def condensed(text: str) -> str:
    """Leave out of a dump what says the same thing twice, or depends on the exporter's release."""
    text = re.sub(r"\bval_\d+: ", "", text)  # names that the exporter counts out to constants
    text = _DEFAULTS.sub("", text).replace(", }", "}").replace(" {}", "")
    text = re.sub(r'"([^"]+)" (\(.*\)) -> \1(?=[ ,\n])', r'"\1" \2', text)  # named as its node
    text = text.replace("QuantizeLinear", "Q").replace("DequantizeLinear", "DQ")
    return re.sub(  # both halves of a pair
        r'Q "(.*)/Q(\S*)" (\(.*\)) \{(.*)\}\nDQ "\1/DQ\2" \(\1/Q\2\) \{\4\}',
        r'Q+DQ "\1\2" \3 {\4}',
        text,
    )


def golden_text(name: str, folder: Path) -> str:
    reference = REFERENCE[name]
    model = quantize(reference.build(), [reference.example_inputs(8)])
    part = model if reference.traceable else model.get_submodule(reference.traced_part)
    return condensed(dump(load_graph(export(part, reference.example_inputs(2), folder / "m.onnx"))))


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_is_the_golden_one(name: str, tmp_path: Path, regen: bool) -> None:
    path = GOLDEN / f"{name}.txt"
    text = golden_text(name, tmp_path)
    if regen:
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), f"if this is meant: pytest {Path(__file__).name} --regen"


def test_there_is_one_golden_file_for_every_architecture() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(REFERENCE)


def test_condensing_keeps_what_differs() -> None:
    """A moved pair, another axis and another attribute must all show."""
    lines = [
        'QuantizeLinear "qdq.x/QuantizeLinear" (x) -> qdq.x/QuantizeLinear {per-tensor int8}',
        'DequantizeLinear "qdq.x/DequantizeLinear" (qdq.x/QuantizeLinear) -> '
        "qdq.x/DequantizeLinear {per-tensor int8}",
        'Conv "c" (qdq.x/DequantizeLinear, c.w: int8[8,8,3,3]) -> c {group=1, strides=[2,2]}',
    ]
    assert condensed("\n".join(lines) + "\n") == (
        'Q+DQ "qdq.x" (x) {per-tensor int8}\n'
        'Conv "c" (qdq.x/DQ, c.w: int8[8,8,3,3]) {strides=[2,2]}\n'
    )
    for old, new in (("(x)", "(y)"), ("[2,2]", "[1,1]"), ("per-tensor", "axis 1"), ("c.w", "d.w")):
        changed = [line.replace(old, new) for line in lines]
        assert condensed("\n".join(changed)) != condensed("\n".join(lines))
