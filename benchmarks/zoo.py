"""Public architectures through every step: this project beside ModelOpt's stock result.

    python benchmarks/zoo.py                       # in an environment of its own: docs/zoo.md
    python benchmarks/zoo.py --only timm:resnet26 --only ultralytics:yolov8n

A process for each side of a network: build, sparsify (every third), quantize, one training step,
export, verification of the file against the model at every quantization point, on two batch sizes,
onnxruntime's plain session against the model at the outputs, preflight, and NVIDIA's own parser
where TensorRT for RTX is installed. ``ours/stock`` is the time of quantize and export over that of
ModelOpt's quantize and torch's export of the float network, one after the other in processes forked
from one. The exit status is 1 where a network fails or its file is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
if __name__ == "__main__":  # before torch is loaded: its pool outlives no fork
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from rich.console import Console
from rich.table import Table

from benchmarks.shared.zoo_networks import NETWORKS, Network
from trt_qat.artifact import platform_facts, versions, write_json

RESULT = Path("benchmarks/results/cpu/zoo.json")
LIBRARIES = (
    "torchvision",
    "timm",
    "ultralytics",
    "segmentation-models-pytorch",
    "transformers",
    "efficientnet-lite-pytorch",
)
SIDES = ("ours", "stock")
SAMPLES = 2
ERROR = 1e-3  # of an output's largest magnitude


def measure(name: str, folder: Path, side: str) -> dict[str, Any]:
    """Take one network through every step of one side; the row says how far it came."""
    import torch

    torch.manual_seed(0)
    network = NETWORKS[name]
    take = {"ours": ours, "stock": stock_result}[side]
    try:
        sparse = list(NETWORKS).index(name) % 3 == 0
        return take(network.build().eval(), network, folder / f"{side}.onnx", sparse)
    except Exception as error:  # a network that fails is what this table is about
        said = str(error).strip().partition("\n")[0][:300]
        return {"failed": f"{type(error).__name__}: {said}"}


def ours(model: Any, network: Network, path: Path, sparse: bool) -> dict[str, Any]:
    """Take a network through this project."""
    import torch

    import trt_qat as tq
    from benchmarks.placement import judge
    from trt_qat.qat.verify import verify  # imports ModelOpt too, which is not to be timed

    batches = [network.batch(SAMPLES, seed) for seed in range(2)]
    if sparse:
        model = tq.sparsify(model, batches[0])
    began = time.process_time()
    model = tq.quantize(model, batches)
    seconds = time.process_time() - began
    report = tq.report_of(model)
    trained = train_a_step(model, batches[0])
    began = time.process_time()
    dynamic = export_as_told(model, batches[0], path)
    seconds += time.process_time() - began
    verified = verify(model, path, batches[0], name=path.name, dynamic=dynamic)  # or raises
    heads = sum(note.why.startswith("head") for note in report.float_layers)
    notes = {note.name: note.why for note in (*report.float_layers, *report.float_outputs)}
    row = judge(path, heads, notes)
    row["exceptions"] = len(row["exceptions"])
    with torch.no_grad():
        want = model.eval()(batches[1])
    return row | {
        "untraced": {note.name or "the model": note.why for note in report.untraced},
        "trained": trained,
        "one_batch_size": not dynamic,
        "matched_points": verified.points,
        "error": verified.worst,
        **at_outputs(path, batches[1], want),
        "parser": by_parser(path),
        "seconds": round(seconds, 2),
    }


def export_as_told(model: Any, batch: Any, path: Path) -> bool:
    """Export with a dynamic batch; where the error says that the code fixes it, with that one."""
    import trt_qat as tq
    from trt_qat.errors import ModelError

    try:
        tq.export(model, batch, path, spec={"verify": False})
    except ModelError as error:
        if "export.dynamic_batch = false" not in str(error):
            raise
        tq.export(model, batch, path, spec={"verify": False, "dynamic_batch": False})
        return False
    return True


def stock_result(model: Any, network: Network, path: Path, sparse: bool) -> dict[str, Any]:
    """Take a network through ModelOpt's own steps and torch's exporter, as its guide says."""
    import modelopt.torch.quantization as mtq
    import torch

    from benchmarks.placement import judge, quiet

    batches = [network.batch(SAMPLES, seed) for seed in range(2)]
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    with quiet():
        plain = copy.deepcopy(model)
        began = time.process_time()
        config = copy.deepcopy(mtq.INT8_DEFAULT_CFG)
        model = mtq.quantize(model, config, lambda m: [m(batch) for batch in batches])
        seconds = time.process_time() - began
        # Its fake quantization is known to torch's older exporter alone, which is not timed.
        torch.onnx.export(model, (batches[0],), str(path), dynamo=False, opset_version=17)
        began = time.process_time()
        torch.onnx.export(plain, (batches[0],), dynamo=True, verbose=False, dynamic_shapes=shapes)
        seconds += time.process_time() - began
    row = judge(path, 0, {})
    row["exceptions"] = len(row["exceptions"])
    return row | {"seconds": round(seconds, 2)}


def train_a_step(model: Any, batch: Any) -> bool:
    """Run one step of training; False where the network's own training path wants targets."""
    import torch
    from torch.utils import _pytree as pytree

    model.train()
    try:
        leaves = pytree.tree_leaves(model(batch))
        tensors = [t for t in leaves if isinstance(t, torch.Tensor) and t.requires_grad]
        loss: torch.Tensor = torch.stack([t.float().square().mean() for t in tensors]).sum()
        torch.autograd.backward(loss)
        torch.optim.SGD(model.parameters(), lr=1e-6).step()
    except Exception:  # a detector's loss needs boxes
        return False
    finally:
        model.zero_grad()
        model.eval()
    return True


def at_outputs(path: Path, batch: Any, want: Any) -> dict[str, float]:
    """Return the largest difference at an output, in parts of its largest magnitude, and agreement.

    End to end a rounding tie that tips is amplified by whatever follows, most of all under random
    weights; `verify` compares without that. Agreement is the share of positions with the same
    largest channel, over all outputs.
    """
    import onnxruntime
    import torch
    from torch.utils import _pytree as pytree

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options)
    made = map(torch.from_numpy, session.run(None, {session.get_inputs()[0].name: batch.numpy()}))
    expected = [t.float() for t in pytree.tree_leaves(want) if isinstance(t, torch.Tensor)]
    pairs = [(e, m.float()) for e, m in zip(expected, made, strict=False)]
    worst = max(float((m - e).abs().max()) / (float(e.abs().max()) or 1.0) for e, m in pairs)
    same = torch.cat([(m.argmax(1) == e.argmax(1)).flatten() for e, m in pairs if e.dim() > 1])
    return {"output_error": worst, "agreement": float(same.float().mean()) if len(same) else 1.0}


def by_parser(path: Path) -> str:
    """Return what NVIDIA's own parser says of the file."""
    from trt_qat.engine.aot.child import Compiler
    from trt_qat.errors import TrtQatError

    try:
        with Compiler() as compiler:
            answer = compiler.parse(path)
    except TrtQatError as error:
        return f"not asked: {str(error)[:80]}"
    return "accepted" if answer.parsed else f"refused: {answer.refusals[0].text[:120]}"


def warm_up(libraries: set[str]) -> None:
    """Load what every network needs, so that a forked process has it and its times have not."""
    import modelopt.torch.quantization as mtq
    import torch

    import trt_qat as tq
    from benchmarks.placement import quiet

    for name in libraries:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    x = torch.randn(2, 3, 8, 8)
    nets = [
        torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), torch.nn.Conv2d(32, 8, 1)).eval()
        for _ in range(2)
    ]
    with tempfile.TemporaryDirectory() as folder:
        tq.export(tq.quantize(nets[0], x), x, Path(folder) / "warm.onnx")
    with quiet():
        mtq.quantize(nets[1], copy.deepcopy(mtq.INT8_DEFAULT_CFG), lambda m: m(x))


def in_a_process(name: str, side: str, limit_s: float) -> dict[str, Any]:
    """Return one side's row of one network, from a process of its own, forked from this one."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_send_row, args=(name, side, sender))
    process.start()
    sender.close()
    try:
        if not receiver.poll(limit_s):
            return {"failed": f"stopped after {limit_s:.0f} s"}
        row: dict[str, Any] = receiver.recv()
    except EOFError:
        process.join()
        return {"failed": f"its process ended with exit code {process.exitcode}"}
    finally:
        process.kill()
        process.join()
    return row


def _send_row(name: str, side: str, sender: Any) -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        sender.send(measure(name, Path(folder), side))


def table(rows: dict[str, dict[str, Any]]) -> Table:
    """Return the results for people."""
    made = Table(title="ours, and ModelOpt stock behind a slash")
    for column in (
        "network",
        "INT8 in and out",
        "islands",
        "two scales",
        "error",
        "parser",
        "time",
    ):
        made.add_column(column, overflow="fold")
    for name, row in rows.items():
        mine, stock = row["ours"], row.get("stock", {})
        if "failed" in mine:
            made.add_row(name, mine["failed"])
            continue
        known = "failed" not in stock and bool(stock)
        cells = [f"{mine['int8_in_int8_out']} of {mine['layers']}"]
        cells += [str(mine[key]) for key in ("float_islands", "two_scales")]
        if known:
            theirs = [f"{stock['int8_in_int8_out']} of {stock['layers']}"]
            theirs += [str(stock[key]) for key in ("float_islands", "two_scales")]
            cells = [f"{ours} / {other}" for ours, other in zip(cells, theirs, strict=True)]
        ratio = f"{mine['seconds'] / stock['seconds']:.2f}" if known else ""
        made.add_row(name, *cells, f"{mine['error']:.1e}", mine["parser"][:40], ratio)
    return made


def summary(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the sums that the table is read for."""
    whole = {name: row["ours"] for name, row in rows.items() if "failed" not in row["ours"]}
    both = [n for n in whole if rows[n].get("stock") and "failed" not in rows[n]["stock"]]
    keys = ("int8_in_int8_out", "layers", "float_islands", "two_scales")
    logs = [math.log(rows[n]["ours"]["seconds"] / rows[n]["stock"]["seconds"]) for n in both]
    return {
        "networks": len(rows),
        "through_every_step": len(whole),
        "wrong_files": [name for name, row in whole.items() if not row["error"] <= ERROR],
        "placed_in_parts": [name for name, row in whole.items() if row["untraced"]],
        "refused_by_the_parser": [n for n, r in whole.items() if r["parser"].startswith("refused")],
        "ours": {key: sum(rows[n]["ours"][key] for n in both) for key in keys},
        "stock": {key: sum(rows[n]["stock"][key] for n in both) for key in keys},
        "time_geometric_mean": round(math.exp(sum(logs) / max(1, len(logs))), 2),
    }


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that are installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> int:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only", action="append", help="library:architecture, or library; repeatable"
    )
    parser.add_argument("--side", choices=SIDES, help="one side alone; the other's rows are kept")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds for one network")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    chosen = [n for n in NETWORKS if not given.only or {n, n.partition(":")[0]} & set(given.only)]
    sides = (given.side,) if given.side else SIDES
    warm_up({name.partition(":")[0] for name in chosen})
    rows = json.loads(given.out.read_text())["networks"] if given.out.exists() else {}
    for name in chosen:
        rows[name] = rows.get(name, {}) | {"part": NETWORKS[name].part}
        rows[name] |= {side: in_a_process(name, side, given.limit) for side in sides}
        said = [rows[name][side].get("failed", "done") for side in sides]
        print(f"{name}: {', '.join(said)}", file=sys.stderr, flush=True)
        rows = {key: rows[key] for key in NETWORKS if key in rows}
        document = {
            "command": "python benchmarks/zoo.py",
            "machine": platform_facts(),
            "versions": versions() | library_versions(),
            "summary": summary(rows),
            "networks": rows,
        }
        write_json(given.out, document)  # a stopped run keeps what it has
    Console(width=140).print(table(rows), json.dumps(summary(rows), indent=1))
    done = summary(rows)
    return int(done["through_every_step"] < done["networks"] or bool(done["wrong_files"]))


if __name__ == "__main__":
    sys.exit(main())
