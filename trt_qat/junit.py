"""JUnit XML, which continuous integration shows: one writer for every check that writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from trt_qat.errors import visible

_TAGS = {"failed": "failure", "skipped": "skipped", "passed": "system-out"}


@dataclass(frozen=True)
class Case:
    """One test case of a suite.

    Attributes:
        name: what was checked.
        classname: what it was checked on, a file or a folder.
        status: how it went.
        text: what there is to say, several lines; none for a case without a word.
        headline: of a failure or of what was skipped; absent: the text.
    """

    name: str
    classname: str
    status: Literal["passed", "failed", "skipped"]
    text: str = ""
    headline: str = ""


def to_junit(suite: str, cases: Sequence[Case]) -> str:
    """Return JUnit XML; names of nodes and files may hold what XML forbids, which is left out."""
    counts = {status: sum(case.status == status for case in cases) for status in _TAGS}
    root = ElementTree.Element("testsuites")
    element = ElementTree.SubElement(
        root,
        "testsuite",
        name=suite,
        tests=str(len(cases)),
        failures=str(counts["failed"]),
        skipped=str(counts["skipped"]),
    )
    for case in cases:
        _add(element, case)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _add(suite: ElementTree.Element, case: Case) -> None:
    text = visible(case.text, keep="\n\t")
    element = ElementTree.SubElement(
        suite, "testcase", classname=visible(case.classname), name=visible(case.name)
    )
    if not text and case.status == "passed":
        return
    told = ElementTree.SubElement(element, _TAGS[case.status])
    if case.status != "passed":
        told.set("message", visible(case.headline or case.text))
    if case.status != "skipped":
        told.text = text
