"""The benchmark that the command shows."""

from tests.benching.conftest import document, linear, result

__all__ = ["document", "linear", "result"]
