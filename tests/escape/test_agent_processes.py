"""The agent's own processes, as the kernel shows them: out of reach, and not the first to go."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.session.offspring import descendants
from tests.escape.runtime import Case, Host, policy
from tests.escape.test_death_of_the_agent import WAIT_SECONDS, part, until
from tests.escape.test_restarts import RULES

MODULES = (
    "agent.daemon.keeper", "agent.daemon.guard", "agent.enforce.egress.main", "agent.enforce.egress.engine_worker",
)  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """What /proc says of a process."""

    owner: int
    score: int
    core: str

    @classmethod
    def of(cls, pid: int) -> Shown:
        at = Path(f"/proc/{pid}")
        (core,) = [line for line in (at / "limits").read_text().splitlines() if line.startswith("Max core file size")]
        return cls(at.joinpath("environ").stat().st_uid, int((at / "oom_score_adj").read_text()), core.split()[4])


def sleeping(root: int) -> list[int]:
    """The session's command, once it is what it was to become."""
    found = []
    for pid in descendants(root):
        with suppress(OSError):  # it may end meanwhile
            if Path(f"/proc/{pid}/comm").read_text() == "sleep\n":
                found.append(pid)
    return found


@pytest.mark.root
def test_no_agent_process_dumps_core_or_is_dumpable_and_the_session_goes_first(host: Host) -> None:
    """Who is not dumpable has files under /proc that belong to root (proc(5)); the session's belong to its user."""
    case = Case(("/bin/sh", "-c", "echo up; exec sleep 60"), policy(extra_egress=RULES))
    run = subprocess.Popen(
        host.command(case), env=host.environment(case), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    try:
        assert run.stdout is not None and run.stdout.readline() == "up\n"
        until(lambda: sleeping(run.pid), "the session's command")
        agents = {module: Shown.of(part(run.pid, module)) for module in MODULES}
        shown = Shown.of(sleeping(run.pid)[0])
    finally:
        run.terminate()  # it has become the keeper (execve)
        run.communicate(timeout=WAIT_SECONDS)
    score = agents["agent.daemon.keeper"].score  # without CAP_SYS_RESOURCE it cannot be lowered
    assert agents == dict.fromkeys(MODULES, Shown(0, score, "0"))
    assert score in (-500, 0)
    assert (shown.owner != 0, shown.score, shown.core) == (True, 0 if score else 100, "0")
