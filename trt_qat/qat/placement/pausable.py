"""A mode of torch that steps aside while it has nothing to look for."""

from __future__ import annotations

from typing import Any

# torch has no public look at the modes of a thread.
from torch.overrides import TorchFunctionMode, _get_current_function_mode


class Pausable(TorchFunctionMode):
    """A mode that can be left and entered again while it is on.

    Torch calls Python for every operation that a mode may see, and for every attribute of a tensor
    that is read: two dozen in one call of a quantizer.

    Attributes:
        busy: pauses that are going on. A mode that another one lies above cannot step aside, and
            has to let operations pass meanwhile.
    """

    def __init__(self) -> None:
        super().__init__()
        self.busy = 0
        self._aside = False

    def __exit__(self, *raised: Any) -> None:
        """Leave torch's modes, unless this one has."""
        if not self._aside:
            super().__exit__(*raised)  # type: ignore[no-untyped-call]

    def pause(self) -> None:
        """See nothing until `resume`."""
        self.busy += 1
        current: Any = _get_current_function_mode  # torch leaves it untyped
        if current() is self:
            super().__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._aside = True

    def resume(self) -> None:
        """End what the last `pause` began."""
        self.busy -= 1
        if not self.busy and self._aside:
            self._aside = False
            self.__enter__()  # type: ignore[no-untyped-call]
