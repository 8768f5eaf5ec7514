"""A checkpoint of a whole container, restored twice: two agents that go on, and never write one chain; and what the
session had open before is no way out of its jail afterwards, though gVisor joins it to the container's network."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.daemon.survival.restoring import MOVED
from agent.enforce.egress.left_behind import RULE
from tests.escape.runtime import policy, read_log, verify
from tests.runtimes.checkpoint import Checkpointed, Ended
from tests.runtimes.engine import Engine
from tests.runtimes.gvisor import GVisor, made_for

SESSION = """\
rm=$(id -un | sed s/session/rm/); n=0
python3 /shared/restored_inside.py 4000 /shared/found &
while [ ! -e /shared/stop ]; do n=$((n+1)); echo $n > /shared/ticks; $rm -rf /etc/attempt-$n; sleep 0.2; done
exit 5
"""


OUTSIDE = """\
echo 127.0.0.1 allowed.test >> /etc/hosts
python3 /outside/restored_outside.py 4000 4500 /outside/seen &
exec /opt/parhelia/bin/parhelia-agent "$@"
"""
HERE = Path(__file__).parent


def until(holds: Callable[[], Any], what: str, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.1)


def attempts(directory: Path) -> list[int]:
    """The numbers of the attempts that are on record there."""
    denied = [event for event in read_log(directory) if event["details"]["event_type"] == "bash.dangerous"]
    return [int(event["resource"].rsplit("-", 1)[1]) for event in denied]


@pytest.mark.root
@pytest.mark.docker
@pytest.mark.gvisor
def test_two_restores_of_one_checkpoint_are_two_streams_that_lead_back_to_one_event(
    docker: Engine, gvisor_directory: Path, tmp_path: Path
) -> None:
    for name, mode in (("audit", 0o700), ("policies", 0o700), ("outside", 0o700), ("shared", 0o777)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    text = policy(write="/tmp, /shared").replace("{http}", "4000").replace("{tls}", "2")
    (tmp_path / "policies" / "policy.yaml").write_text(text)
    for name in ("shared/restored_inside.py", "outside/restored_outside.py"):
        (tmp_path / name).write_text((HERE / Path(name).name).read_text())
    log = tmp_path / "audit" / "log"
    gvisor = GVisor(made_for(docker, "trixie"), gvisor_directory / "rootfs", gvisor_directory)
    flags = ("--policy", "/policies", "--audit-dir", "/audit/log", "--", "/bin/sh", "-c", SESSION)
    mounts = [(tmp_path / name, f"/{name}") for name in ("audit", "policies", "outside", "shared")]
    container = Checkpointed(gvisor, ("/bin/sh", "-c", OUTSIDE, "sh", "run", *flags), mounts)
    container.prepare()
    with container.started() as first:
        until(lambda: log.exists() and len(attempts(log)) >= 3, "three denials of the session")
        until((tmp_path / "shared" / "found.ready").exists, "the page, and sockets that are open")
        container.checkpoint()
    before = read_log(log)
    assert "agent.stop" not in {event["details"]["event_type"] for event in before}, first.words
    time.sleep(4)  # less than what the agent takes for a pause: it sees it by itself

    lives = []
    for _ in range(2):
        lives.append(life(container, log, tmp_path / "shared"))
        check_jail(tmp_path, lives[-1][0])

    assert read_log(log) == before, "no restored agent adds to the stream that it had"
    starts = [read_log(child)[0]["details"] for child, _ in lives]
    assert {start["reason"] for start in starts} == {MOVED}
    assert [ended.status for _, ended in lives] == [5, 5], lives[0][1].words
    assert len({start["boot"] for start in starts} | {before[0]["details"]["boot"]}) == 3
    assert len({start["stream"] for start in starts} | {before[0]["details"]["stream"]}) == 3
    for child, _ in lives:
        kinds = [event["details"]["event_type"] for event in read_log(child)]
        assert "agent.recovered" in kinds, "the egress process starts afresh, with random numbers of its own"
    last = before[-1]
    for start in starts:
        assert (start["parent_stream"], start["parent_boot"]) == (last["details"]["stream"], last["details"]["boot"])
        assert (start["parent_seq"], start["parent_hash"]) == (last["details"]["seq"], last["event_hash"])
    for child, _ in lives:
        numbers = attempts(log) + attempts(child)
        assert numbers == list(range(1, len(numbers) + 1)), "every attempt is on record once, before or after"
    assert verify(log) == 0


def life(container: Checkpointed, log: Path, shared: Path) -> tuple[Path, Ended]:
    """Restore it, let it be refused some more, end it; the directory that it wrote to."""
    known = set(log.glob("restored-*"))
    (shared / "stop").unlink(missing_ok=True)
    with container.restored() as ended:
        until(lambda: set(log.glob("restored-*")) - known, "a new stream")
        (child,) = set(log.glob("restored-*")) - known
        until(lambda: len(attempts(child)) >= 3, "three more denials")
        until(lambda: "agent.recovered" in (child / "audit.jsonl").read_text(), "a new egress process")
        until((shared / "found").exists, "what the session has tried")
        (shared / "stop").touch()
    return child, ended


def check_jail(tmp_path: Path, child: Path) -> None:
    """What the session of one life has come to."""
    found = json.loads((tmp_path / "shared" / "found").read_text())
    (tmp_path / "shared" / "found").unlink()
    assert (found["before"], found["new"], found["six"]) == (
        "ConnectionRefusedError",
        "ConnectionRefusedError",
        "OSError",
    )
    assert (found["old"], found["datagram"]) == ("PermissionError", "PermissionError"), found
    assert found["raced"] == ["PermissionError"], found
    assert (found["in threads"], found["in a thread, none left"]) == (["URLError"], "200"), found
    assert found["around before"] == found["around"] == {"page": "200", "name": "127.0.0.1", "captured": "403"}, found
    assert found["by IPv6"] == "1", "the name server's door for streams of IPv6"
    assert found["connected"] == signal.SIGKILL, "who could send by a datagram socket of before is ended"
    seen = (tmp_path / "outside" / "seen").read_text().splitlines()
    assert set(seen) == {"GET /page HTTP/1.1"}, "nothing but the page is reached, nor reaches the session"
    locks = tmp_path / "outside" / "seen.locks"
    assert set(locks.read_text().splitlines()) == {"held"}, "nobody takes the run for over"
    locks.unlink()
    refused = [event["details"] for event in read_log(child) if event["details"].get("rule") == RULE]
    assert {each["event_type"] for each in refused} == {"network.egress_blocked"}
