"""What is asked about a file that the session executes."""

from __future__ import annotations

import pytest

from agent.enforce.commands.executable import Executables
from agent.enforce.commands.program import File, Run
from agent.policy.request import Access, Origin

PUBLIC = "/run/parhelia"


def asked(path: str) -> str | None:
    run = Run((b"x",), path, File(path, 1, 1))
    request = Executables("/home/s", "/tmp/s", (PUBLIC,)).request(run, Origin("exec"))
    assert request is None or request.access is Access.EXECUTE
    return None if request is None else request.path


@pytest.mark.parametrize("path", ["/usr/bin/ls", f"{PUBLIC}/deeper/tool", "/run/parhelia2/tool", "/run/tool"])
def test_files_are_asked_for_by_their_own_path(path: str) -> None:
    assert asked(path) == path


@pytest.mark.parametrize("path", [f"{PUBLIC}/parhelia-hook", "/tmp/gone (deleted)", "memfd:x"])
def test_what_the_agent_gives_the_session_and_what_has_no_path_is_not_asked_for(path: str) -> None:
    assert asked(path) is None
