"""The policy follows its files while a session runs; what is invalid or cannot be followed leaves the last good one."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from agent.daemon.base.journal import Journal
from agent.daemon.policies.reload import Reloading, Running, cannot_follow
from agent.daemon.policies.store import PolicyStore
from agent.policy.model import Policy
from agent.record.ledger import Ledger
from agent.record.metrics import Metrics
from agent.session.levels import Offer
from tests.conftest import require
from tests.daemon.base.test_spec import SPEC
from tests.daemon.policies.test_settled import held
from tests.escape.runtime import read_log
from tests.policy.authority import make_certificate

OFFER = Offer(root=True, jail="root", mounts=True, landlock=7, seccomp=True, notify=True)
BASE = "version: 1\negress: {allow: [one.test, two.test]}\npaths: {write: [/tmp], read: [/usr]}\n"
NARROW = BASE.replace("one.test, two.test", "one.test")
_, AUTHORITY = make_certificate("authority.test", ca=True)
LOOK = 0.02


@dataclass
class Session:
    """What runs: `followed` are the policies that the egress process got, `events` what is in the log so far."""

    directory: Path
    store: PolicyStore
    reloading: Reloading
    ledger: Ledger
    metrics: Metrics
    followed: list[Policy]
    log: Path

    def events(self, kind: str) -> list[dict[str, Any]]:
        self.ledger.flush()
        return [event for event in read_log(self.log) if event["details"]["event_type"] == kind]

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not holds():  # files, not events
                await asyncio.sleep(LOOK)


def follow(
    tmp_path: Path, test: Callable[[Session], Awaitable[None]], *, first: str = BASE, contained: bool = False
) -> None:
    """Run the test beside a session that was started with the policy `first`."""
    directory = tmp_path / "policies"
    if not directory.exists():
        directory.mkdir()
        (directory / "a.yaml").write_text(first)

    async def body() -> None:
        store, metrics, followed = PolicyStore([directory]), Metrics(version="t"), list[Policy]()
        ledger = Ledger(tmp_path / "log", session_id="s", boot="b", policy_digest=lambda: store.current.digest)
        ledger.start()
        spec = replace(SPEC, require_contained=contained, policy_dirs=(str(directory),))
        running = Running(spec, store.current, OFFER, ledger, metrics, Journal(ledger, spec), followed.append)
        reloading = Reloading(store, running, look_seconds=LOOK)
        try:
            await test(Session(directory, store, reloading, ledger, metrics, followed, tmp_path / "log"))
        finally:
            await reloading.stop()
            ledger.close()

    asyncio.run(body())


def test_a_changed_file_is_in_force_and_handed_on(tmp_path: Path) -> None:
    async def test(session: Session) -> None:
        before = session.store.current.digest
        (session.directory / "a.yaml").write_text(NARROW)
        await session.until(lambda: session.followed)
        (event,) = session.events("policy.reload")
        details = event["details"]
        assert (details["previous_digest"], details["policy_digest"], details["changed"], details["reason"]) == (
            before,
            session.followed[0].digest,
            ["egress"],
            "the policy's files changed",
        )
        assert session.store.current == session.followed[0]
        assert session.followed[0].digest.encode() in session.metrics.render()

    follow(tmp_path, test)


def test_a_reload_that_cannot_be_recorded_still_reaches_the_egress_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands are decided by it already: connections must not go on by another one."""

    def broken(*_: object) -> None:
        raise OSError("the disk is full")

    async def test(session: Session) -> None:
        monkeypatch.setattr(session.ledger, "configure", broken)
        (session.directory / "a.yaml").write_text(NARROW)
        await session.until(lambda: session.followed)
        assert session.followed == [session.store.current]

    follow(tmp_path, test)


def test_a_swapped_link_is_seen_as_a_mounted_configmap_swaps_it(tmp_path: Path) -> None:
    directory = tmp_path / "policies"
    for name, text in (("..1", BASE), ("..2", NARROW)):
        (directory / name).mkdir(parents=True)
        (directory / name / "a.yaml").write_text(text)
    (directory / "..data").symlink_to("..1")
    (directory / "a.yaml").symlink_to("..data/a.yaml")

    async def test(session: Session) -> None:
        (directory / "..tmp").symlink_to("..2")
        os.replace(directory / "..tmp", directory / "..data")
        await session.until(lambda: session.followed)
        assert len(session.events("policy.reload")) == 1

    follow(tmp_path, test)


def test_an_invalid_file_leaves_the_last_good_policy_and_says_why(tmp_path: Path) -> None:
    async def test(session: Session) -> None:
        before = session.store.current
        (session.directory / "a.yaml").write_text("version: 1\negress: {alow: [evil.test]}\n")
        await session.until(lambda: session.events("policy.rejected"))
        (event,) = session.events("policy.rejected")
        assert "a.yaml:2" in event["details"]["reason"]
        assert (event["result"], session.store.current, session.followed) == ("error", before, [])
        (session.directory / "a.yaml").write_text(NARROW)
        await session.until(lambda: session.followed)

    follow(tmp_path, test)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BASE.replace("/tmp", "/tmp, /srv"), "needs a new session: it changes the session's paths"),
        (BASE.replace("read: [/usr]", "read: [/usr/bin]"), "needs a new session: it changes the session's paths"),
        (BASE + "session: {env: [LOOK_HERE]}\n", "needs a new session: it changes the session's environment"),
        (
            BASE.replace("one.test, two.test]", f"one.test, two.test], trust: [{json.dumps(AUTHORITY)}]"),
            "needs a new session: it changes the authorities",
        ),
        (
            BASE.replace("one.test, two.test", "{host: one.test, methods: [GET]}"),
            "a rule looks into TLS, and the interception engine was not started",
        ),
    ],
)
def test_what_a_running_session_cannot_follow_is_refused_whole(tmp_path: Path, text: str, reason: str) -> None:
    async def test(session: Session) -> None:
        before = session.store.current
        (session.directory / "a.yaml").write_text(text)
        await session.until(lambda: session.events("policy.rejected"))
        (event,) = session.events("policy.rejected")
        assert reason in event["details"]["reason"]
        assert (session.store.current, session.followed) == (before, [])

    follow(tmp_path, test)


INSPECTED = "version: 1\negress: {allow: [{host: '*.good.test', methods: [GET]}]}\n"


@pytest.mark.parametrize(
    ("host", "reasons"),
    [
        ("api.good.test", []),
        ("'*.api.good.test'", []),
        ("good.test", ["needs a new session: its interception CA does not vouch for good.test"]),
        ("evilgood.test", ["needs a new session: its interception CA does not vouch for evilgood.test"]),
    ],
)
def test_a_host_that_the_sessions_ca_does_not_vouch_for(tmp_path: Path, host: str, reasons: list[str]) -> None:
    async def test(session: Session) -> None:
        other = tmp_path / "other"
        other.mkdir()
        (other / "a.yaml").write_text(INSPECTED.replace("'*.good.test'", host))
        policy = PolicyStore([other]).current
        running = session.reloading._running
        assert cannot_follow(running, session.store.current, policy) == reasons

    follow(tmp_path, test, first=INSPECTED)


def test_observing_from_now_on_is_said_and_refused_to_a_contained_session(tmp_path: Path) -> None:
    observed = BASE.replace("egress: {", "egress: {mode: observe, ")

    async def said(session: Session) -> None:
        (session.directory / "a.yaml").write_text(observed)
        await session.until(lambda: session.followed)
        (event,) = session.events("agent.degraded")
        assert (event["resource"], event["details"]["level"]) == ("egress", "off")

    async def refused(session: Session) -> None:
        (session.directory / "a.yaml").write_text(observed)
        await session.until(lambda: session.events("policy.rejected"))
        assert "--require contained: egress would be off" in session.events("policy.rejected")[0]["details"]["reason"]
        assert session.followed == []

    (tmp_path / "one").mkdir()
    follow(tmp_path / "one", said)
    (tmp_path / "two").mkdir()
    follow(tmp_path / "two", refused, contained=True)


def test_who_asks_is_answered_also_where_nothing_changed(tmp_path: Path) -> None:
    async def test(session: Session) -> None:
        session.reloading.ask()
        await session.until(lambda: session.events("policy.reload"))
        (event,) = session.events("policy.reload")
        assert (event["details"]["reason"], event["details"]["changed"]) == ("SIGHUP", [])

    follow(tmp_path, test)


def test_a_directory_that_goes_away_takes_no_policy_with_it(tmp_path: Path) -> None:
    async def test(session: Session) -> None:
        before = session.store.current
        session.directory.rename(tmp_path / "elsewhere")
        await session.until(lambda: session.events("policy.rejected"))
        assert session.store.current == before
        (tmp_path / "elsewhere" / "a.yaml").write_text(NARROW)
        (tmp_path / "elsewhere").rename(session.directory)
        await session.until(lambda: session.followed)

    follow(tmp_path, test)


def test_a_reload_that_breaks_leaves_the_policy_and_the_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(session: Session) -> None:
        before = session.store.current
        with monkeypatch.context() as broken:
            broken.setattr("agent.daemon.policies.store.read_policy", lambda *_, **__: 1 / 0)
            (session.directory / "a.yaml").write_text(NARROW)
            await session.until(lambda: session.events("policy.rejected"))
            assert session.store.current == before
        session.reloading.ask()
        await session.until(lambda: session.followed)

    follow(tmp_path, test)


@pytest.mark.parametrize("how", ["owned", "written by others", "in a directory of its own"])
@pytest.mark.root
def test_a_policy_that_the_session_could_have_written_is_not_read(tmp_path: Path, how: str) -> None:
    require(os.geteuid() == 0, "files of another account need root")

    async def test(session: Session) -> None:
        before = session.store.current
        file = session.directory / "a.yaml"
        file.write_text(BASE.replace("two.test", "evil.test"))
        if how == "owned":
            os.chown(file, SPEC.session_user.uid, 0)
        elif how == "written by others":
            file.chmod(0o666)
        else:
            os.chown(session.directory, SPEC.session_user.uid, 0)
        await session.until(lambda: session.events("policy.rejected"))
        assert "could have been written by the session" in session.events("policy.rejected")[0]["details"]["reason"]
        assert (session.store.current, session.followed) == (before, [])

    follow(tmp_path, test)


def test_a_file_that_a_program_still_writes_is_waited_for_and_that_is_said_once_where_it_lasts(tmp_path: Path) -> None:
    """What is there so far is valid, and lacks what is still to come."""

    async def test(session: Session) -> None:
        before = session.store.current
        with held(session.directory / "a.yaml", os.O_WRONLY):
            (session.directory / "b.yaml").write_text("version: 1\negress: {allow: [more.test]}\n")
            await session.until(lambda: session.events("policy.rejected"))
            (event,) = session.events("policy.rejected")
            assert "a.yaml is open for writing" in event["details"]["reason"]
            (said,) = await session.reloading.ask()
            assert "a.yaml is open for writing" in said
            assert (session.store.current, session.followed) == (before, [])
        await session.until(lambda: session.followed)
        assert len(session.events("policy.rejected")) == 1

    follow(tmp_path, test)
