"""What a SPEC is called where there is little room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def short_names(specs: Sequence[str]) -> dict[str, str]:
    """Return SPECs without the folders of their files, as far as they stay different."""
    short = {spec: _without_folder(spec) for spec in specs}
    taken = Counter(short.values())
    return {spec: name if taken[name] == 1 else spec for spec, name in short.items()}


def _without_folder(spec: str) -> str:
    kind, colon, rest = spec.partition(":")
    return spec if kind in ("torch", "torch-compile") or not colon else f"{kind}:{Path(rest).name}"
