"""Regular expressions that are compiled when they are first used: to compile all that a process imports takes longer
than some processes live. Rules kept here: imports nothing that takes time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

__all__ = ["expression"]


class _Late:
    """Stands for `re.compile(*given)`, whose methods it has from their first use on."""

    def __init__(self, *given: Any) -> None:
        self._given = given

    def __getattr__(self, name: str) -> Any:
        found = self.__dict__[name] = getattr(re.compile(*self._given), name)
        return found


if TYPE_CHECKING:
    expression = re.compile
else:
    expression = _Late
