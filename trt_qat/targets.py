"""What each GPU and each TensorRT version can do, as a table: no other module knows a device.

Peaks are those of the vendor's data sheets at boost clock, in 10^12 operations a second, a
multiply-add counting as two. Sheets print the number *with 2:4 sparsity* for most devices from
Ampere on (marked there by an asterisk); the dense number is half of it, and both stand here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from trt_qat import capabilities
from trt_qat.capabilities import CAPABILITIES, Version, dotted
from trt_qat.errors import InputError, nearest

__all__ = [
    "KNOWN_TENSORRT", "MAX_OPSET", "MIN_OPSET", "TARGETS", "Peak", "Target", "Version", "max_opset",
    "names", "parse_version", "target",
]  # fmt: skip


@dataclass(frozen=True)
class Peak:
    """Peak of the tensor cores for one data type, in tera-operations a second.

    Attributes:
        dense: Without sparsity.
        sparse: With 2:4 weights; None where the hardware has no sparse path.
    """

    dense: float
    sparse: float | None


UNRATED = Peak(math.nan, None)
"""Of a target that stands for a compute capability: its products differ."""


@dataclass(frozen=True)
class Target:
    """A device that engines are built for.

    Attributes:
        name: How recipes and the CLI call it.
        title: The product.
        sm: CUDA compute capability.
        int8: Peak with INT8 operands and INT32 accumulation; None: no INT8 tensor cores.
        fp16: Peak with FP16 operands and FP32 accumulation.
        fp8: Peak with FP8 operands, None before Ada.
        fp4: Peak with FP4 operands, None before Blackwell.
        bandwidth_gb_s: Memory bandwidth in 10^9 bytes a second.
        dla_cores: Deep-learning accelerators beside the GPU.
        dla_int8: Peak of all DLA cores together.
        tensorrt: First and last ``(major, minor)`` that supports it; the last None: still does.
        source: The document that states the numbers.
        confirmed: The INT8 and FP16 peaks were compared with a quotation of that document; where
            False they were entered from memory of it and a roofline says so.
        on_dla: The engine is meant for the DLA and not for the GPU.
        rated: Its peaks and its bandwidth are on record; without them there is no roofline.
    """

    name: str
    title: str
    sm: Version
    int8: Peak | None
    fp16: Peak
    fp8: Peak | None
    fp4: Peak | None
    bandwidth_gb_s: float
    tensorrt: tuple[Version, Version | None]
    source: str
    confirmed: bool = True
    dla_cores: int = 0
    dla_int8: Peak | None = None
    on_dla: bool = False
    rated: bool = True

    @property
    def sparse_2_4(self) -> bool:
        """The tensor cores have a 2:4 path: compute capability 8.0 on."""
        return self.sm >= capabilities.SPARSE_SINCE

    def supports(self, version: Version) -> bool:
        """Tell whether a TensorRT release runs on the device."""
        first, last = self.tensorrt
        return version >= first and (last is None or version <= last)


_ORIN = CAPABILITIES[8, 7].tensorrt
_TURING, _AMPERE = CAPABILITIES[7, 5].tensorrt, CAPABILITIES[8, 0].tensorrt
_ADA, _HOPPER = CAPABILITIES[8, 9].tensorrt, CAPABILITIES[9, 0].tensorrt

_TABLE = (
    Target(
        "orin-agx", "Jetson AGX Orin 64 GB (MAXN)", (8, 7), Peak(85, 170), Peak(42.5, 85),
        None, None, 204.8, _ORIN,
        "Jetson AGX Orin Series Technical Brief v1.2: 275 sparse INT8 TOPS = GPU 170 + DLA 105",
        dla_cores=2, dla_int8=Peak(52.5, 105),
    ),
    Target(
        "orin-nx", "Jetson Orin NX 16 GB (25 W)", (8, 7), Peak(30, 60), Peak(15, 30),
        None, None, 102.0, _ORIN,
        "Jetson Orin NX Series data sheet DS-10712-001 v1.7, MAXN: 100 sparse INT8 TOPS of which "
        "DLA 40; 32 tensor cores at 918 MHz; 102 GB/s (MAXN_SUPER, 1173 MHz, is faster)",
        dla_cores=2, dla_int8=Peak(20, 40),
    ),
    Target(
        "orin-nano", "Jetson Orin Nano 8 GB (MAXN SUPER)", (8, 7), Peak(33, 67), Peak(17, 33),
        None, None, 102.0, _ORIN,
        "Jetson Orin Nano Super Developer Kit data sheet: 67 sparse INT8 TOPS, 102 GB/s, no DLA",
    ),
    Target(
        "thor", "Jetson AGX Thor T5000", (11, 0), Peak(517, 1035), Peak(258, 517),
        Peak(517, 1035), Peak(1035, 2070), 273.0, ((10, 13), (10, 99)),
        "Jetson Thor module specification, T5000: 2070 TFLOPS (sparse FP4), 1035 (dense FP4, "
        "sparse FP8, sparse INT8), 517 (dense FP8, sparse FP16); 273 GB/s",
    ),
    Target(
        "xavier-agx", "Jetson AGX Xavier 32 GB", (7, 2), Peak(22, None), Peak(11, None),
        None, None, 136.5, CAPABILITIES[7, 2].tensorrt,
        "Jetson AGX Xavier data sheet: 32 INT8 TOPS = GPU 22 + DLA 10; 136.5 GB/s",
        confirmed=False, dla_cores=2, dla_int8=Peak(10, None),
    ),
    Target(
        "xavier-nx", "Jetson Xavier NX 16 GB", (7, 2), Peak(12, None), Peak(6, None),
        None, None, 59.7, CAPABILITIES[7, 2].tensorrt,
        "Jetson Xavier NX data sheet: 21 INT8 TOPS = GPU 12 + DLA 9; 59.7 GB/s",
        confirmed=False, dla_cores=2, dla_int8=Peak(9, None),
    ),
    Target(
        "t4", "Tesla T4", (7, 5), Peak(130, None), Peak(65, None), None, None, 320.0, _TURING,
        "NVIDIA T4 data sheet: INT8 130 TOPS, FP16 65 TFLOPS (no sparsity before Ampere)",
    ),
    Target(
        "a100", "A100 80 GB SXM", (8, 0), Peak(624, 1248), Peak(312, 624), None, None, 2039.0,
        _AMPERE, "NVIDIA A100 data sheet: INT8 624 | 1248*, FP16 312 | 624*",
    ),
    Target(
        "a10", "A10", (8, 6), Peak(250, 500), Peak(125, 250), None, None, 600.0, _AMPERE,
        "NVIDIA A10 data sheet: INT8 250 | 500*, FP16 125 | 250*, 600 GB/s",
    ),
    Target(
        "a30", "A30", (8, 0), Peak(330, 661), Peak(165, 330), None, None, 933.0, _AMPERE,
        "NVIDIA A30 data sheet: INT8 330 | 661*, FP16 165 | 330*, 933 GB/s",
    ),
    Target(
        "l4", "L4", (8, 9), Peak(242.5, 485), Peak(121, 242), Peak(242.5, 485), None, 300.0,
        _ADA, "NVIDIA L4 data sheet (all with sparsity): INT8 485*, FP8 485*, FP16 242*",
    ),
    Target(
        "l40s", "L40S", (8, 9), Peak(733, 1466), Peak(362.05, 733), Peak(733, 1466), None,
        864.0, _ADA,
        "NVIDIA L40S data sheet: INT8 733 | 1466*, FP8 733 | 1466*, FP16 362.05 | 733*",
    ),
    Target(
        "rtx-3090", "GeForce RTX 3090", (8, 6), Peak(284, 568), Peak(71, 142), None, None, 936.0,
        _AMPERE,
        "NVIDIA Ampere GA102 whitepaper: INT8 284 | 568*, FP16 with FP32 accumulate 71 | 142*",
    ),
    Target(
        "rtx-4090", "GeForce RTX 4090", (8, 9), Peak(660.6, 1321.2), Peak(165.2, 330.4),
        Peak(330.3, 660.6), None, 1008.0, _ADA,
        "NVIDIA Ada whitepaper, appendix A: INT8 660.6 | 1321.2*, with FP32 accumulate FP16 "
        "165.2 | 330.4* and FP8 330.3 | 660.6*",
    ),
    Target(
        "rtx-5090", "GeForce RTX 5090", (12, 0), Peak(838, 1676), Peak(209.5, 419),
        Peak(419, 838), Peak(1676, 3352), 1792.0, ((10, 8), None),
        "NVIDIA RTX Blackwell whitepaper, appendix A: INT8 838 | 1676*, with FP32 accumulate FP16 "
        "209.5 | 419* and FP8 419 | 838*, FP4 1676 | 3352*",
        confirmed=False,
    ),
    Target(
        "h100", "H100 80 GB SXM", (9, 0), Peak(1979, 3958), Peak(989.5, 1979),
        Peak(1979, 3958), None, 3350.0, _HOPPER,
        "NVIDIA H100 data sheet (all with sparsity): INT8 3958*, FP8 3958*, FP16 1979*",
    ),
    Target(
        "h200", "H200 141 GB SXM", (9, 0), Peak(1979, 3958), Peak(989.5, 1979),
        Peak(1979, 3958), None, 4800.0, _HOPPER,
        "NVIDIA H200 data sheet (all with sparsity): INT8 3958*, FP8 3958*, FP16 1979*",
    ),
    Target(
        "b200", "B200 180 GB SXM", (10, 0), Peak(4500, 9000), Peak(2250, 4500),
        Peak(4500, 9000), Peak(9000, 18000), 7700.0, ((10, 8), None),
        "NVIDIA Blackwell data sheet, each GPU of an HGX B200: FP4 18* PFLOPS, FP8 and INT8 9*, "
        "FP16 4.5*; 180 GB at 7.7 TB/s",
    ),
)  # fmt: skip

TARGETS: Mapping[str, Target] = {entry.name: entry for entry in _TABLE}
_DLA_SUFFIX = "-dla"

# The newest opset that a release of the ONNX parser documents, from that release on
# (onnx-tensorrt docs/operators.md at each release; the ONNX Opset Guide for 11).
MAX_OPSET: Mapping[Version, int] = {
    (8, 0): 13, (8, 5): 17, (9, 2): 19, (10, 0): 20, (10, 15): 24, (11, 4): 25,
}  # fmt: skip
MIN_OPSET = 9
OLDEST: Version = (8, 0)
KNOWN_TENSORRT = (
    "8.0", "8.2", "8.4", "8.5", "8.6", "10.0", "10.3", "10.7", "10.12", "10.13", "10.16", "11.0",
    "11.4",
)  # fmt: skip
STRONG_TYPING_ADVISED: Version = (10, 12)
INT64_NATIVE: Version = (9, 0)
FP8_SINCE: Version = (9, 0)
INT4_SINCE: Version = (10, 0)
FP4_SINCE: Version = (10, 8)


def names() -> tuple[str, ...]:
    """Return every name that `target` takes as it stands, those of the DLA variants included."""
    return tuple(_SPELLINGS)


def target(name: str) -> Target:
    """Return the device of a name; case, spaces, ``_``, ``nvidia``, ``jetson`` do not matter.

    ``orin-agx-dla`` and ``orin-nx-dla`` are the same modules with the engine on the DLA. A compute
    capability (``sm_86``, ``8.6``) and a product of which only that is known (``RTX A4000``) are
    targets too: rules apply to them, and there is no roofline.

    Raises:
        InputError: no such device; the message has the nearest names.
    """
    words = re.findall(r"[a-z]+|\d+[a-z]?", name.lower())
    for canonical, names in _SPELLINGS.items():
        if frozenset(words) - {"nvidia", "jetson", "tesla", "geforce"} in names:
            base = canonical.removesuffix(_DLA_SUFFIX)
            if base == canonical:
                return TARGETS[base]
            return replace(TARGETS[base], name=canonical, on_dla=True)
    other = _unrated(name)
    if other is not None:
        return other
    close = ", ".join(nearest(name.lower(), _SPELLINGS, count=3))
    msg = (
        f"unknown target {name!r}; nearest: {close}; all: {', '.join(_SPELLINGS)}; or its compute "
        "capability, such as sm_86"
    )
    raise InputError(msg)


def _unrated(name: str) -> Target | None:
    """Return the target of a compute capability or of a product known by that alone."""
    sm, cores = capabilities.named(name), True
    if sm is not None:
        title = f"a device of compute capability {dotted(sm)}"
        canonical = f"sm_{sm[0]}{sm[1]}"
    else:
        product = capabilities.of_product(name)
        if product is None:
            return None
        sm, cores = product
        title = " ".join(name.split())
        canonical = re.sub(r"[\s_]+", "-", name.strip().lower())
    known = CAPABILITIES.get(sm)
    if known is None:
        listed = ", ".join(f"sm_{major}{minor}" for major, minor in CAPABILITIES)
        msg = f"TensorRT 8 to 11 knows no compute capability {dotted(sm)}; known: {listed}"
        raise InputError(msg)
    return Target(
        name=canonical,
        title=title,
        sm=sm,
        int8=UNRATED if cores and sm >= capabilities.INT8_CORES_SINCE else None,
        fp16=UNRATED,
        fp8=UNRATED if sm >= capabilities.FP8_SINCE else None,
        fp4=UNRATED if sm >= capabilities.FP4_SINCE else None,
        bandwidth_gb_s=math.nan,
        tensorrt=known.tensorrt,
        source=f"NVIDIA's list of CUDA GPUs: {known.architecture}",
        confirmed=False,
        rated=False,
    )


def _spellings() -> dict[str, set[frozenset[str]]]:
    """Return, by canonical name, the sets of words that mean it: ``orin-agx`` is ``AGX Orin``."""
    known = [*TARGETS, *(f"{t.name}{_DLA_SUFFIX}" for t in _TABLE if t.dla_cores)]
    table = {name: {frozenset(re.findall(r"[a-z]+|\d+[a-z]?", name))} for name in known}
    for name, words in (("thor", "agx thor"), ("rtx-3090", "3090"), ("rtx-4090", "4090")):
        table[name].add(frozenset(words.split()))
    table["rtx-5090"].add(frozenset({"5090"}))
    return table


_SPELLINGS = _spellings()


def parse_version(text: str) -> Version:
    """Return ``(major, minor)`` of a TensorRT version such as ``10.16.1``.

    Raises:
        InputError: it is no version, or older than 8.0, the first with Q/DQ layers.
    """
    match = re.fullmatch(r"(\d{1,3})(?:\.(\d{1,3}))?(?:[.+\w-]*)", text.strip())
    if match is None:
        msg = f"{text!r} is no TensorRT version; give it as 10.16 or 11.4.1"
        raise InputError(msg)
    version = (int(match[1]), int(match[2] or 0))
    if version < OLDEST:
        msg = f"TensorRT {text} is older than 8.0; known: {', '.join(KNOWN_TENSORRT)}"
        raise InputError(msg)
    return version


def max_opset(version: Version) -> int:
    """Return the newest opset that the ONNX parser of a TensorRT version documents."""
    return max(opset for since, opset in MAX_OPSET.items() if version >= since)
