"""Which layers of two engines are the same, when exports number their nodes differently.

TensorRT names a fused layer after what it fused: ``layer1.0.conv2.weight + QuantizeLinear_32 +
Conv_34 + Add_36 + Relu_37``. With other Q/DQ the same convolution ends in ``Conv_34 + Add_42``, so
layers are paired by what both names share: a parameter or a named node first, then an operator that
each engine has once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from trt_qat.engine.evidence.layer_info import Layer

Pair = tuple[Layer, Layer]

_PARTS = re.compile(r" \+ |[(),\[\]]")
"""Between the names of nodes in a layer's name: ``a + PWN(PWN(b), c)``, ``{ForeignNode[d]}``."""
_COUNTED = re.compile(r"([A-Za-z]+)_\d+")
"""A node that the exporter left without a name."""
_QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_GENERIC = frozenset({"PWN", "ElementWise", "Shuffle", "{ForeignNode", "}"})


def parts(name: str) -> list[str]:
    """Return the names of nodes and parameters that a layer's name is made of, in order."""
    return [part.strip() for part in _PARTS.split(name) if part.strip()]


def fuses(layer: Layer) -> str:
    """Return the operators of the unnamed nodes of a layer, Q and DQ left out: ``Conv + Add``."""
    found = (_COUNTED.fullmatch(part) for part in parts(layer.name))
    kinds = [match[1] for match in found if match]
    return " + ".join(kind for kind in kinds if kind not in _QUANTIZERS)


def paired(a: Sequence[Layer], b: Sequence[Layer]) -> list[Pair]:
    """Return the layers that two engines share, in the order of the first.

    Layers that compute are paired by name, by a shared name within, then by operator; copies and
    lone Q and DQ by name alone.
    """
    found = _by(a, b, lambda layer: [layer.name])
    for keys in (_named, _operators):
        found += _by(_left(a, found, 0), _left(b, found, 1), keys)
    place = {id(layer): at for at, layer in enumerate(a)}
    return sorted(found, key=lambda pair: place[id(pair[0])])


def _left(layers: Sequence[Layer], found: Sequence[Pair], side: int) -> list[Layer]:
    done = {id(pair[side]) for pair in found}
    return [x for x in layers if id(x) not in done and x.purpose == "compute"]


def _by(a: Iterable[Layer], b: Iterable[Layer], keys: Callable[[Layer], list[str]]) -> list[Pair]:
    """Pair layers by the first key that one layer of each side has, and no other."""
    ours, theirs = _owners(a, keys), _owners(b, keys)
    found: list[Pair] = []
    taken: set[int] = set()
    for key, mine in ours.items():
        other = theirs.get(key, [])
        free = not {id(x) for x in (*mine, *other)} & taken
        if len(mine) == len(other) == 1 and free:
            found.append((mine[0], other[0]))
            taken |= {id(mine[0]), id(other[0])}
    return found


def _owners(layers: Iterable[Layer], keys: Callable[[Layer], list[str]]) -> dict[str, list[Layer]]:
    owners: dict[str, list[Layer]] = {}
    for layer in layers:
        for key in dict.fromkeys(keys(layer)):
            owners.setdefault(key, []).append(layer)
    return owners


def _named(layer: Layer) -> list[str]:
    names = [*layer.onnx, *parts(layer.name)]
    return [x for x in names if not _COUNTED.fullmatch(x) and x not in _GENERIC]


def _operators(layer: Layer) -> list[str]:
    found = (_COUNTED.fullmatch(part) for part in parts(layer.name))
    return [match[1] for match in found if match]
