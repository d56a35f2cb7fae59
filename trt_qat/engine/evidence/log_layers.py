"""The layers that a builder's log lists, in each form that TensorRT has printed.

Verbose builders end with ``Engine Layer Information:`` and a line a layer. A tensor stands there as
``name[Int8(1,64,200,200)]`` up to 8.4 and as ``name (Int8[1,96:32,800,912])`` from 8.5 on, where
``96:32`` are 96 channels in vectors of 32. trtexec's ``--dumpLayerInfo`` prints the inspector's own
text between its other messages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from trt_qat.engine.evidence import oneline
from trt_qat.engine.evidence.log_text import Message
from trt_qat.engine.evidence.pairing import parts

_LAYER = re.compile(
    r"^Layer\((?P<type>[^()]*)\): (?P<name>.+?), Tactic: (?P<tactic>\S+?),? (?P<in>.*)-> ?"
    r"(?P<out>.*)$"
)
_TENSORS = (
    re.compile(r"(?P<name>.*?) \((?P<type>[A-Z]\w*)\[(?P<dims>[^\]]*)\]\)(?:, |\s*$)"),
    re.compile(r"(?P<name>.*?)\[(?P<type>[A-Z]\w*)\((?P<dims>[^)]*)\)\](?:, |\s*$)"),
)
_HEADERS = ("Bindings:", "I/O Tensors:")
_QUANTIZER = re.compile(r"(?:^|[/._])(?:De)?[Qq]uantize(?:Linear)?(?:$|[_/])")
_PLAIN_TYPES = frozenset({"Constant", "NoOp", "Reformat", "Scale", "Shuffle", ""})


def line_entry(text: str) -> dict[str, Any] | None:
    """Return a builder's layer line as an entry of the inspector's JSON; None: it is no such line.

    A tensor whose type the line does not state has no ``Format/Datatype``.
    """
    match = _LAYER.match(text)
    if match is None:
        return None
    entry: dict[str, Any] = {
        "Name": match["name"],
        "LayerType": match["type"],
        "TacticValue": match["tactic"],
        "Inputs": _tensors(match["in"]),
        "Outputs": _tensors(match["out"]),
    }
    if _only_quantizers(match["name"], match["type"]):
        entry["Origin"] = "QDQ"
    return entry


def states_types(entry: dict[str, Any]) -> bool:
    """Tell whether an entry says what types a layer reads or writes."""
    return any("Format/Datatype" in each for key in ("Inputs", "Outputs") for each in entry[key])


def _tensors(text: str) -> list[dict[str, Any]]:
    text = text.strip()
    for pattern in _TENSORS:
        found, at = [], 0
        while match := pattern.match(text, at):
            found.append(_tensor(match))
            at = match.end()
        if found and at == len(text):
            return found
    return [{"Name": text}] if text else []


def _tensor(match: re.Match[str]) -> dict[str, Any]:
    dims = re.sub(r":\d+", "", match["dims"])
    sizes = [int(size) for size in re.findall(r"-?\d+", dims)]
    # The vector width stands with the channels: Int8[1,96:32,800,912].
    said = f"{match['type']}[{match['dims']}]"
    return {"Name": match["name"].strip(), "Dimensions": sizes, "Format/Datatype": said}


def _only_quantizers(name: str, kind: str) -> bool:
    """Tell whether a layer is a Q or DQ that fused with nothing, by the nodes in its name."""
    if kind not in _PLAIN_TYPES or name.startswith("Reformatting CopyNode"):
        return False
    return all(_QUANTIZER.search(re.sub(r"_clone_\d+$", "", part)) for part in parts(name))


def listing(log: Sequence[Message]) -> dict[str, Any] | None:
    """Return what the inspector printed into a log, as its JSON; None: it printed nothing.

    Messages of stderr may stand between its lines; those begin with a prefix and it does not.
    """
    begin = next((at for at, each in enumerate(log) if each.text.strip() == "Layers:"), None)
    if begin is None:
        return None
    layers: list[str] = []
    bindings: list[str] = []
    header = ""
    for message in log[begin + 1 :]:
        if message.severity and not message.text.startswith("Name: "):
            if layers and not _between(message):
                break
            continue
        text = message.text.strip()
        if text in _HEADERS:
            header = text
        elif header:
            bindings.append(text)
        else:
            layers.append(text)
    told = oneline.parse("\n".join(["Layers:", *layers, "", header, *bindings, ""]))
    if told is None and layers:
        told = {"Layers": layers, "Bindings": bindings}
    return told


def _between(message: Message) -> bool:
    """Tell whether a message may interrupt the listing: memory figures and warnings do."""
    return message.text.startswith("[Mem") or message.severity in ("V", "W")
