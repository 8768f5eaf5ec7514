"""Steps of the launcher, each in a child of its own: what the whole of it comes to is shown in tests/escape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.channel import Channel, pair
from agent.linux import namespaces, process
from agent.session.launch import Launch, oom_score
from tests.conftest import require
from tests.linux.forked import outcome
from tests.session.test_plan import PLAN


def test_what_stands_in_below_an_empty_run_has_the_kind_of_what_it_stands_for(tmp_path: Path) -> None:
    """Such as the target of a resolv.conf that is a link into /run (systemd-resolved)."""
    require(process.Capability.SYS_ADMIN in process.capabilities(), "CAP_SYS_ADMIN")
    resolver, public = tmp_path / "resolv.conf", tmp_path / "public"
    resolver.write_text("nameserver 127.0.0.1\n")
    public.mkdir()
    (public / "file").write_text("public")
    binds = ((str(public), "/run/parhelia"), (str(resolver), "/run/systemd/resolve/stub-resolv.conf"))
    ours, theirs = pair()

    def piece() -> None:
        namespaces.unshare(namespaces.NEWNS)
        plan = replace(
            PLAN,
            mounts=True,
            pids=None,
            hold=(),
            hide=(),
            sockets=(),
            empty_run=True,
            bind=binds,
            empty_file="/dev/null",
            write=("/",),
        )
        launch = Launch(Channel(theirs), Channel(theirs), plan)
        launch.mount_own_proc()
        for _ in range(2):
            Channel(ours).send({"type": "hold", "places": []})
        launch.cover_private_paths()
        assert {path.name for path in Path("/run").iterdir()} == {"parhelia", "systemd"}
        assert Path("/run/parhelia/file").read_text() == "public"
        assert Path("/run/systemd/resolve/stub-resolv.conf").read_text() == "nameserver 127.0.0.1\n"

    with ours, theirs:
        assert outcome(piece) == 0


@pytest.mark.parametrize(("agents", "session"), [(-500, 0), (-1, 0), (0, 100), (985, 1000), (1000, 1000)])
def test_the_session_is_killed_for_memory_before_the_agent(agents: int, session: int) -> None:
    assert oom_score(agents) == session
