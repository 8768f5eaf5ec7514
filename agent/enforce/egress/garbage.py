"""How often a process that serves connections looks for garbage in cycles: rarely, and not among what it has imported.

Most of a connection's objects are freed as soon as nothing holds them; the collector is for the few in cycles. With the
interpreter's own thresholds it took a tenth of all CPU.
"""

from __future__ import annotations

import gc
from typing import Final

_NEW_OBJECTS: Final = 20_000


def collect_rarely() -> None:
    """Call once, when everything is imported."""
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 20, 20)
