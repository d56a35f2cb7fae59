"""Which tensors must have one scale: a disjoint-set forest over vertices."""

from __future__ import annotations

from trt_qat.qat.placement.flow import Vertex


class ScaleGroups:
    """Sets of tensors that share a scale, because an operation carries it through (P6)."""

    def __init__(self) -> None:
        self._parent: dict[Vertex, Vertex] = {}

    def group(self, vertex: Vertex) -> Vertex:
        """Return the representative of the set that ``vertex`` is in."""
        root = vertex
        while root in self._parent:
            root = self._parent[root]
        while vertex is not root:
            self._parent[vertex], vertex = root, self._parent[vertex]
        return root

    def join(self, a: Vertex, b: Vertex) -> None:
        """Put two tensors into one set; the earlier one given stays the representative."""
        a, b = self.group(a), self.group(b)
        if a is not b:
            self._parent[b] = a
