"""What those who serve a bundle read and run first: a client, and a page that says how."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from trt_qat.errors import visible
from trt_qat.runners.protocol import TensorSpec

CLIENT = "client.py"

_SCRIPT = '''\
"""Asks the model {name} once: `python client.py` here, `python client.py URL` a Triton server.

Put your own arrays in the place of `example()`; they are prepared as in training:
{prepared}.
"""

import sys
from pathlib import Path

import numpy as np

INPUTS = {inputs}
OUTPUTS = {outputs}


def example():
    """Return zeros of the right names, shapes and types; a dynamic size is 1."""
    return {{
        name: np.zeros([1 if size is None else size for size in shape], dtype)
        for name, (shape, dtype) in INPUTS.items()
    }}


def ask_here(feed):
    """Run the ONNX beside this file: pip install onnxruntime."""
    import onnxruntime

    path = Path(__file__).parent / {onnx!r}
    session = onnxruntime.InferenceSession(
        str(path),
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["ReluQuantRewrite"],  # drops a Relu before a Q of FP8
    )
    return dict(zip(OUTPUTS, session.run(OUTPUTS, feed)))


def ask_triton(feed, url):
    """Ask a server: pip install 'tritonclient[http]'."""
    import tritonclient.http as triton

    inputs = []
    for name, array in feed.items():
        tensor = triton.InferInput(name, list(array.shape), triton.np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    answer = triton.InferenceServerClient(url).infer({name!r}, inputs)
    return {{name: answer.as_numpy(name) for name in OUTPUTS}}


if __name__ == "__main__":
    answers = ask_triton(example(), sys.argv[1]) if len(sys.argv) > 1 else ask_here(example())
    for name, array in answers.items():
        print(name, array.dtype, array.shape)
'''

_README = """\
# {name}

| file | what for |
| --- | --- |
{files}

## Inputs and outputs

| | name | type | shape |
| --- | --- | --- | --- |
{tensors}

{prepared_sentence}

## Serve it

```sh
sh trtexec/build.sh   # where TensorRT and the GPU are; an engine runs on that kind of GPU alone
docker run --rm --gpus all -p 8000:8000 -v "$PWD/triton:/models" \\
  nvcr.io/nvidia/tritonserver:YY.MM-py3 tritonserver --model-repository=/models
python {client} localhost:8000
```

Without TensorRT, by onnxruntime: `triton-onnx/` in the place of `triton/`, and no `--gpus`; or
without a server: `python {client}`. Its times say nothing of TensorRT's.
{notes}"""


def client_script(
    name: str,
    inputs: Mapping[str, TensorSpec],
    outputs: Sequence[str],
    *,
    onnx: str,
    prepared: str,
) -> str:
    """Return a client in Python for Triton and for onnxruntime.

    Args:
        name: of the model on the server.
        inputs: of the ONNX.
        outputs: names of its outputs.
        onnx: path of the ONNX from the script's folder.
        prepared: how inputs are prepared, in words.
    """
    shown = {
        key: ([size if isinstance(size, int) else None for size in spec.shape], spec.dtype)
        for key, spec in inputs.items()
    }
    return _SCRIPT.format(
        name=name, inputs=repr(shown), outputs=repr(list(outputs)), onnx=onnx, prepared=prepared
    )


def readme(
    name: str,
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
    *,
    files: Mapping[str, str],
    prepared: str,
    notes: Sequence[str],
) -> str:
    """Return the page of a bundle.

    Args:
        name: of the model.
        inputs: of the ONNX.
        outputs: of it.
        files: path -> what for.
        prepared: how inputs are prepared, in words.
        notes: what is missing or could not be expressed.
    """
    rows = [
        f"| {kind} | `{_cell(key)}` | {spec.dtype} | ({_cell(', '.join(map(str, spec.shape)))}) |"
        for kind, each in (("input", inputs), ("output", outputs))
        for key, spec in each.items()
    ]
    said = "".join(f"\n- {visible(note)}" for note in notes)
    return _README.format(
        name=name,
        files="\n".join(f"| `{path}` | {what} |" for path, what in files.items()),
        tensors="\n".join(rows),
        prepared_sentence=f"Inputs are prepared as in training: {prepared}.",
        client=CLIENT,
        notes=f"\n## Notes\n{said}\n" if said else "",
    )


def _cell(text: str) -> str:
    """Return a name for a cell of a table, which nothing in it ends."""
    return visible(text).replace("|", "\\|").replace("`", "'")


def preparation(mean: Sequence[float], std: Sequence[float], *, images: bool) -> str:
    """Return how a recipe prepares inputs, in words."""
    if not images:
        return "by the data function of the recipe"
    words = "pixels from 0 to 1"
    words += f", less {json.dumps(list(mean))}" if mean else ""
    return words + (f", over {json.dumps(list(std))}" if std else "")
