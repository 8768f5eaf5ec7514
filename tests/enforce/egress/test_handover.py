from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable
from pathlib import Path

import pytest

from agent.enforce.egress.handover import Engine, HandOverError
from agent.record.event import Event, EventType, RecordError
from tests.enforce.egress.engine_front import ACTOR, HOST, Front, Journal, Target, policy_of, tls_rule, until
from tests.enforce.egress.engine_upstream import Authority, Http1Upstream

POLICY = policy_of(tls_rule(HOST, 443, paths=("/**",)))


def give(engine: Engine, sock: socket.socket) -> None:
    engine.hand_over(
        sock, b"", host=HOST, port=443, addresses=("192.0.2.1",), kind="connect", request_id="c", source_ip=None
    )


def worker_script(tmp_path: Path, body: str) -> str:
    """An interpreter in whose place `body` runs, with the channel's descriptor in `channel`."""
    script = tmp_path / "worker"
    script.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[3])!r})\n"
        "import socket, time\nfrom agent.channel import Channel\n"
        "channel = Channel(socket.socket(fileno=int(sys.argv[sys.argv.index('--channel') + 1])))\n"
        "channel.receive()\n" + body
    )
    script.chmod(0o700)
    return str(script)


READY = 'channel.send({"type": "ready", "ca": {"certificate": "pem", "key": "key", "chain": ""}})\n'
EVENT = {
    "type": "network.egress_blocked",
    "actor": ACTOR,
    "action": "CREATE",
    "resource": "evil.test:443",
    "resource_type": "network",
    "result": "denied",
    "source_ip": None,
    "details": {"rule": "r"},
}


def run_worker(tmp_path: Path, body: str, journal: Journal, seconds: float = 60) -> list[str]:
    """Start the engine with `body` as worker; the deaths that were reported until its channel ended."""
    deaths: list[str] = []

    async def run() -> None:
        engine = Engine(POLICY, ACTOR, journal, python=worker_script(tmp_path, body), on_death=deaths.append)
        assert await engine.start() == "pem"
        for _ in range(int(seconds * 100)):
            if deaths:
                break
            await asyncio.sleep(0.01)
        await engine.stop()

    asyncio.run(run())
    return deaths


def test_a_bundle_that_cannot_be_loaded_fails_the_start(tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    with pytest.raises(HandOverError, match="did not start"):
        Front(POLICY, missing)


def test_a_worker_that_cannot_even_import_fails_the_start(tmp_path: Path) -> None:
    async def run() -> None:
        engine = Engine(POLICY, ACTOR, Journal(), python=worker_script(tmp_path, "sys.exit(1)"))
        with pytest.raises(HandOverError, match="did not start"):
            await engine.start()

    asyncio.run(run())


def test_before_the_start_a_connection_is_refused_and_closed() -> None:
    ours, theirs = socket.socketpair()
    with pytest.raises(HandOverError, match="not running"):
        give(Engine(POLICY, ACTOR, Journal()), theirs)
    assert ours.recv(1) == b""


def test_after_the_stop_a_connection_is_refused_and_closed_and_the_worker_is_gone(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    deaths: list[str] = []

    async def run() -> int | None:
        engine = Engine(POLICY, ACTOR, Journal(), on_death=deaths.append)
        await engine.start()
        await engine.stop()
        with pytest.raises(HandOverError):
            give(engine, theirs)
        return engine.pid

    pid = asyncio.run(run())
    assert ours.recv(1) == b""
    assert deaths == []
    assert pid is not None
    assert not Path(f"/proc/{pid}").exists()


def test_a_stop_ends_a_worker_that_does_not_listen(tmp_path: Path) -> None:
    async def run() -> int | None:
        engine = Engine(POLICY, ACTOR, Journal(), python=worker_script(tmp_path, READY + "time.sleep(600)"))
        await engine.start()
        await engine.stop()
        return engine.pid

    assert not Path(f"/proc/{asyncio.run(run())}").exists()


@pytest.mark.parametrize(
    "said",
    [
        {"type": "listen", "doors": ["proxy"]},
        {"type": "event", "n": 1, "accept": False, "event": EVENT | {"actor": "agent"}},
        {"type": "event", "n": 1, "accept": False, "event": EVENT | {"type": "session.create"}},
        {"type": "event", "n": 1, "accept": False, "event": {}},
        {"type": "stats", "up": "many"},
        {"type": "stats", "up": 1, "down": 1, "hosts": {"never.given": [1, 1]}},
        {"no": "type"},
    ],
)
def test_a_worker_that_says_what_it_may_not_is_the_end(tmp_path: Path, said: dict[str, object]) -> None:
    journal = Journal()
    deaths = run_worker(tmp_path, READY + f"channel.send({said!r})\ntime.sleep(600)", journal)
    assert len(deaths) == 1
    assert "malformed message" in deaths[0]
    assert journal.posted == journal.accepted == []


def test_a_worker_that_sends_descriptors_is_the_end(tmp_path: Path) -> None:
    deaths = run_worker(
        tmp_path, READY + 'channel.send({"type": "stats", "up": 1, "down": 1}, [0])\ntime.sleep(600)', Journal()
    )
    assert "descriptors" in deaths[0]


def test_a_worker_that_ends_is_reported_once(tmp_path: Path) -> None:
    deaths = run_worker(tmp_path, READY, Journal())
    assert len(deaths) == 1
    assert deaths[0].startswith("interception engine: ")


ASK = f'channel.send({{"type": "event", "n": 7, "accept": True, "event": {EVENT!r}}})\n'
TELL = (
    "answer = channel.receive()[0]\n"
    'numbers = {"hosts": {}, "decisions": [0] * 14, "seconds": 0.0}\n'
    'channel.send({"type": "stats", "up": len(answer["type"]), "down": answer["n"], **numbers})\n'
)


@pytest.mark.parametrize(("broken", "answer"), [(False, "accepted"), (True, "refused")])
def test_an_event_that_must_be_accepted_is_answered_as_the_recorder_does(
    tmp_path: Path, broken: bool, answer: str
) -> None:
    journal = Journal()
    journal.broken = broken
    numbers: list[tuple[int, int]] = []

    async def run() -> None:
        python = worker_script(tmp_path, READY + ASK + TELL + "channel.receive()")
        engine = Engine(POLICY, ACTOR, journal, python=python, on_stats=lambda *both: numbers.append(both))
        await engine.start()
        for _ in range(6000):
            if numbers:
                break
            await asyncio.sleep(0.01)
        await engine.stop()

    asyncio.run(run())
    assert numbers == [(len(answer), 7)]
    assert len(journal.accepted) == (0 if broken else 1)


class Slow(Journal):
    """A recorder that accepts by a future, as the egress process's does."""

    def accept(self, event: Event) -> Awaitable[None]:  # type: ignore[override]
        async def later() -> None:
            await asyncio.sleep(0)
            if event.type is not EventType.NETWORK_EGRESS_BLOCKED:
                raise RecordError("unexpected")
            self.accepted.append(event)

        return later()


def test_an_acceptance_that_takes_its_time_is_waited_for(tmp_path: Path) -> None:
    journal = Slow()
    run_worker(tmp_path, READY + ASK + TELL, journal)
    assert [event.resource for event in journal.accepted] == ["evil.test:443"]


def test_a_worker_whose_parent_is_gone_ends_by_itself(authority: Authority, upstream: Http1Upstream) -> None:
    front = Front(policy_of(tls_rule(HOST, upstream.port, paths=("/**",))), authority.file)
    front.target = Target(HOST, upstream.port)
    assert front.get("GET", "/x")[0].status == 200
    pid = front.engine.pid
    assert pid is not None
    link = front.engine._link
    assert link is not None
    front.loop.call_soon_threadsafe(link.close)
    until(lambda: bool(front.deaths), "the end of the channel")
    front.close()
    assert not Path(f"/proc/{pid}").exists()


def test_a_worker_that_is_stopped_in_its_tracks_does_not_block_the_egress_process(
    authority: Authority, upstream: Http1Upstream
) -> None:
    front = Front(policy_of(tls_rule(HOST, upstream.port, paths=("/**",))), authority.file)
    pid = front.engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    socks = [front.connect() for _ in range(200)]
    asked = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), front.loop)
    assert asked.result(60) is None
    for sock in socks:
        sock.close()
    front.close()
    assert not Path(f"/proc/{pid}").exists()
