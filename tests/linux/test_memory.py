"""Files without a name: whoever is given the descriptor has them, and nobody else."""

from __future__ import annotations

import os
import stat

from agent.linux.memory import nameless
from tests.conftest import require


def test_it_is_used_by_its_descriptor_and_opened_by_no_other_account() -> None:
    require(os.geteuid() == 0, "root, to be another account")
    descriptor = nameless("test")
    os.pwrite(descriptor, b"words", 0)
    assert os.pread(descriptor, 9, 0) == b"words"
    assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0
    assert not os.get_inheritable(descriptor)
    child = os.fork()
    if child == 0:
        os.setresuid(65534, 65534, 65534)
        try:
            os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
        except PermissionError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(descriptor)
