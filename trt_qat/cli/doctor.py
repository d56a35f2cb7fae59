"""``trt-qat doctor``: what runs on this machine."""

from __future__ import annotations

from trt_qat.cli.options import AsJson
from trt_qat.cli.screen import print_json, results, say


def doctor(as_json: AsJson = False) -> None:
    """Say which stages run on this machine, and what is missing for the rest."""
    from trt_qat.cli.tables.run import doctor_table
    from trt_qat.pipeline.doctor import examine

    document = examine()
    if as_json:
        print_json(document)
        return
    results().print(doctor_table(document))
    for note in document["notes"]:
        say(f"note: {note}")
    say("next: trt-qat init FOLDER, or trt-qat preflight MODEL.onnx")
