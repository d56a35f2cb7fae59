"""A network of more weights than one ONNX file holds, through every step, each in a process.

    python benchmarks/large.py --gigabytes 2.5 --out benchmarks/results/cpu/large.json
    python benchmarks/large.py --folder /tmp/large --out large.json               # keep the export
    python benchmarks/large.py --folder /tmp/large --steps fix compare --out large.json

Linear layers of equal width, exported with weights as FP32 behind Q/DQ, so that the file is as
large as the network. Of each step the peak of the memory that was its own (RssAnon: files that are
mapped can be given back at any time) and its seconds; a step may have 12 GiB of data
(RLIMIT_DATA), beyond which the system refuses and the step fails; files that a process may write
to a copy of, as onnxruntime maps weights, count there. Steps that are left out keep what ``--out``
says of them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

LIMIT_BYTES = 12 << 30
LAYERS = 16
STEPS = ("export", "preflight", "fix", "compare")


def network(gigabytes: float) -> Any:
    """Return Linear layers with ReLUs between, of so many bytes together."""
    import torch
    from torch import nn

    width = round((gigabytes * 1e9 / 4 / LAYERS) ** 0.5) // 16 * 16
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(LAYERS):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers[:-1]), torch.randn(2, width)


def export(gigabytes: float, folder: Path) -> None:
    """Quantize and export; leave an input for compare."""
    import numpy as np

    from trt_qat.qat.export import export as to_onnx
    from trt_qat.qat.quantize import quantize

    model, x = network(gigabytes)
    quantize(model, [x], calibration={"algorithm": "max"})
    to_onnx(model, x, folder / "model.onnx", spec={"weights": "fp32"})
    np.savez(folder / "x.npz", **{"input": x.numpy()})


def commands(folder: Path) -> dict[str, list[str]]:
    """Return the command lines of the steps behind the export."""
    model, fixed = str(folder / "model.onnx"), str(folder / "fixed.onnx")
    return {
        "preflight": ["preflight", model, "--json"],
        "fix": ["preflight", model, "--fix", fixed, "--json"],
        "compare": [
            "compare",
            "--ref",
            model,
            "--cand",
            fixed,
            "--data",
            str(folder / "x.npz"),
            "--json",
        ],
    }


def own_bytes(pid: int) -> int:
    """Return how much memory a process holds that is no mapped file."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    line = next((line for line in status.splitlines() if line.startswith("RssAnon")), "_ 0")
    return int(line.split()[1]) * 1024


def measured(words: list[str]) -> dict[str, Any]:
    """Run a step in a process with a limit, and return what it took."""
    started, peak = time.perf_counter(), 0
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_BYTES, LIMIT_BYTES)),
    )
    with tempfile.TemporaryFile("w+") as told:
        import threading

        assert process.stdout is not None
        reader = threading.Thread(target=lambda: told.writelines(process.stdout or ()))
        reader.start()
        while process.poll() is None:
            peak = max(peak, own_bytes(process.pid))
            time.sleep(0.05)
        reader.join()
        told.seek(0)
        said = told.read()
    return {
        "exit_code": process.returncode,
        "peak_gib": round(peak / 2**30, 2),
        "seconds": round(time.perf_counter() - started, 1),
        "said": "" if process.returncode in (0, 4) else said[-600:],
    }


def main() -> None:
    """Read the command line and run the steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--folder", type=Path, help="where the files lie, and stay")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--export", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.export is not None:
        export(given.gigabytes, given.export)
        return
    with contextlib.ExitStack() as stack:
        if (folder := given.folder) is None:
            scratch = tempfile.TemporaryDirectory(prefix="trt-qat-large-")
            folder = Path(stack.enter_context(scratch))
        folder.mkdir(parents=True, exist_ok=True)
        steps = known(given.out)
        own = [__file__, "--gigabytes", str(given.gigabytes), "--export", str(folder)]
        lines = {"export": own}
        lines |= {key: ["-m", "trt_qat", *words] for key, words in commands(folder).items()}
        for step in given.steps:
            steps[step] = measured(lines[step])
            print(step, steps[step], flush=True)
        size = sum(path.stat().st_size for path in folder.glob("model.onnx*"))
    document = {
        "parameters_gb": given.gigabytes,
        "file_gb": round(size / 1e9, 2),
        "limit_gib": LIMIT_BYTES >> 30,
        "steps": {step: steps[step] for step in STEPS if step in steps},
    }
    if given.out is not None:
        given.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def known(out: Path | None) -> dict[str, Any]:
    """Return the steps of an earlier record."""
    if out is None or not out.is_file():
        return {}
    steps: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))["steps"]
    return steps


if __name__ == "__main__":
    main()
