"""Files without a name, in memory, for those who are given the descriptor and nobody else (memfd_create(2)).

The kernel makes them open to all (mode 0777), which in Linux matters to nobody who may not look into the process.
gVisor lets anybody follow /proc/PID/fd, so there it is the mode that keeps others out: it has no bits. Descriptors that
are open already are as good as before; root, and the owner's uid by a chmod, can open it anew.
"""

from __future__ import annotations

import os


def nameless(name: str) -> int:
    """A new one, empty, close-on-exec. `name` is what /proc shows. Raises OSError."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.fchmod(descriptor, 0)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
