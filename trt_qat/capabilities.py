"""CUDA compute capabilities and the products that have them: what a GPU can do at all.

`trt_qat.targets` holds the devices whose peaks are on record; this table names the others, of which
only the capability is known. Sources: NVIDIA's list of CUDA GPUs (developer.nvidia.com/cuda-gpus),
and the hardware tables of the TensorRT support matrices 8.0 to 11.4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

Version = tuple[int, int]
Span = tuple[Version, Version | None]


def dotted(version: Version) -> str:
    """Return a release or a compute capability as people write it: 8.9."""
    return f"{version[0]}.{version[1]}"


@dataclass(frozen=True)
class Capability:
    """What the GPUs of one compute capability have in common.

    Attributes:
        architecture: NVIDIA's name of it.
        tensorrt: First and last ``(major, minor)`` that supports it; the last None: still does.
    """

    architecture: str
    tensorrt: Span


# 8.5 release notes: Kepler ends with 8.5, Maxwell with 8.x; the matrix of 10.0 begins with Volta,
# which 10.5 drops (10.3 release notes). JetPack 4 ends with TensorRT 8.2, JetPack 5, the last for
# Xavier, with 8.5. "JetPack is not supported" in 11.3 and 11.4 (10.x to 11.x migration guide).
CAPABILITIES: Mapping[Version, Capability] = {
    (5, 0): Capability("Maxwell", ((8, 0), (8, 6))),
    (5, 2): Capability("Maxwell", ((8, 0), (8, 6))),
    (5, 3): Capability("Maxwell, Jetson", ((8, 0), (8, 2))),
    (6, 0): Capability("Pascal", ((8, 0), (8, 6))),
    (6, 1): Capability("Pascal", ((8, 0), (8, 6))),
    (6, 2): Capability("Pascal, Jetson", ((8, 0), (8, 2))),
    (7, 0): Capability("Volta", ((8, 0), (10, 4))),
    (7, 2): Capability("Volta, Jetson Xavier", ((8, 0), (8, 5))),
    (7, 5): Capability("Turing", ((8, 0), None)),
    (8, 0): Capability("Ampere", ((8, 0), None)),
    (8, 6): Capability("Ampere", ((8, 0), None)),
    (8, 7): Capability("Ampere, Jetson Orin", ((8, 4), (10, 99))),
    (8, 9): Capability("Ada", ((8, 5), None)),
    (9, 0): Capability("Hopper", ((8, 5), None)),
    (10, 0): Capability("Blackwell", ((10, 8), None)),
    (10, 3): Capability("Blackwell", ((10, 8), None)),
    (11, 0): Capability("Blackwell, Jetson Thor", ((10, 13), (10, 99))),
    (12, 0): Capability("Blackwell", ((10, 8), None)),
    (12, 1): Capability("Blackwell", ((10, 8), None)),
}
INT8_CORES_SINCE: Version = (7, 2)
INT4_SINCE: Version = (8, 0)
SPARSE_SINCE: Version = (8, 0)
FP8_SINCE: Version = (8, 9)
FP4_SINCE: Version = (10, 0)

# A name without vendor, spaces and dashes -> capability, and whether it has tensor cores: the
# GTX 16 and the T series of Turing have none.
_PRODUCTS: tuple[tuple[str, Version, bool], ...] = (
    (r"(gtx|titan)?(750|745)(ti)?|m10", (5, 0), False),
    (r"gtx9[5-8]0(ti)?|titanx|m4|m40|m60", (5, 2), False),
    (r"nano|tx1", (5, 3), False),
    (r"p100|gp100", (6, 0), False),
    (r"(gtx)?10[3-8]0(ti)?|titanxp|p4|p6|p40|p[2456]000|p2200", (6, 1), False),
    (r"tx2(nx)?", (6, 2), False),
    (r"v100s?|titanv|gv100", (7, 0), False),
    (r"(agx)?xavier(agx|nx)?", (7, 2), True),
    (r"(gtx)?16[3-6]0(ti|super)?|(quadro)?t[12]000|t[456]00|t550|t1200", (7, 5), False),
    (r"(rtx)?20[5-8]0(ti|super|maxq)*|titanrtx|rtx[34568]000|t4g?", (7, 5), True),
    (r"(rtx)?30[5-9]0(ti)?|(rtx)?a(2|10[gm]?|16|40|[2456]000|[45]500)", (8, 6), True),
    (r"a100x?|a30x?|a800", (8, 0), True),
    (r"(rtx)?40[5-9]0(ti|d|super)*|l4|l40s?|l20", (8, 9), True),
    (r"rtx(2000|3500|4[05]00|5000|5880|6000)ada(generation)?", (8, 9), True),
    (r"g?h[12]00|h800|h20", (9, 0), True),
    (r"b100|g?b200a?", (10, 0), True),
    (r"g?b300", (10, 3), True),
    (r"(rtx)?50[5-9]0(ti|d)?|rtxpro\d000(blackwell)?", (12, 0), True),
    (r"gb10|dgxspark|spark", (12, 1), True),
)
_VENDOR = r"nvidia|geforce|tesla|jetson|graphics|laptop|gpu|mobile|sxm\d?|pcie|nvl|hbm\d?e?|\d+ ?gb"
_CAPABILITY = re.compile(r"(?:sm|cc|compute)[ _-]?(\d{1,2})\.?(\d)[af]?|(\d{1,2})\.(\d)")


def named(text: str) -> Version | None:
    """Return the capability that ``sm_86``, ``compute_86`` or ``8.6`` writes; None: it is none.

    The capability may be one that `CAPABILITIES` does not list.
    """
    found = _CAPABILITY.fullmatch(text.strip().lower())
    if found is None:
        return None
    major, minor = (x for x in found.groups() if x is not None)
    return int(major), int(minor)


def of_product(text: str) -> tuple[Version, bool] | None:
    """Return the capability of a product and whether it has tensor cores; None: not known."""
    compact = re.sub(rf"{_VENDOR}|[^a-z0-9]", "", text.lower())
    for pattern, capability, cores in _PRODUCTS:
        if compact and re.fullmatch(pattern, compact.removeprefix("quadro")):
            return capability, cores
    return None
