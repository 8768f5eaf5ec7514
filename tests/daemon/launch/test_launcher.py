"""Commands of a session start in the confinement that the launch has made, the first and any further one alike."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agent.channel import pair
from agent.daemon.launch.launcher import LaunchFailed, LaunchLink, NoWorkdir, Started
from agent.daemon.launch.waiting import Waiting, start_launcher
from agent.daemon.protection.protecting import compile_protection
from agent.daemon.protection.rounds import Rounds
from agent.daemon.protection.searching import Bounds
from agent.enforce.commands.supervisor import ExecSupervisor
from agent.gate import Gate
from agent.linux import landlock, process
from agent.session.doors import Door
from agent.session.plan import Command, Hold, Plan, Proofs
from agent.session.probe import probe
from tests.conftest import open_way, require
from tests.enforce.commands.filtered import GID, UID
from tests.enforce.commands.test_supervisor import policy
from tests.enforce.ring import Recorded, build_request
from tests.policy.test_protection import protected
from tests.session.test_plan import PLAN

SELF = """\
read -r _ _ _ _ group session _ < /proc/$$/stat; [ "$group $session" = "$$ $$" ] && echo "leads, below $PPID"
for kind in ipc mnt net pid user; do readlink /proc/self/ns/$kind; done
grep -E '^(Uid|Gid|Groups|NoNewPrivs|Seccomp|Cap[A-Za-z]*):' /proc/self/status
ls /proc/self/fd | tr '\\n' ' '
cat /var/lib/dpkg/status > /dev/null 2>&1 || echo closed
pwd
env
"""
ENV = {"PATH": "/usr/bin:/bin", "WORD": "given"}


@dataclass
class Session:
    """A launch that was let go, with an exec ring that denies deleting the system."""

    link: LaunchLink
    recorded: Recorded
    ended: list[str] = field(default_factory=list)
    lost: list[list[str]] = field(default_factory=list)

    async def start(self, *argv: str, workdir: str = "/", stdin: int | None = None) -> tuple[Started, int]:
        """A command and the reading end of its output."""
        read, write = os.pipe()
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            streams = (null if stdin is None else stdin, write, write)
            return await self.link.run(Command(argv, ENV, workdir), streams), read
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
            os.close(null)

    async def run(self, *argv: str, workdir: str = "/", stdin: int | None = None) -> tuple[int, str]:
        """Exit status and output of a command."""
        started, read = await self.start(*argv, workdir=workdir, stdin=stdin)
        with os.fdopen(read) as out:
            text = await asyncio.to_thread(out.read)
        return os.waitstatus_to_exitcode(await asyncio.wait_for(started.status, 60)), text


@asynccontextmanager
async def session(plan: Plan, more: Callable[[list[str]], list[tuple[str, Hold]]]) -> AsyncIterator[Session]:
    supervisors: list[ExecSupervisor] = []
    recorded = Recorded()

    async def serve(doors: list[Door], listeners: list[int]) -> None:
        assert len(doors) == len(listeners)

    async def supervise(listener: int) -> None:
        in_force = policy()
        gate = Gate(lambda: in_force, recorded, "session:test")
        supervisor = ExecSupervisor(
            listener, gate, build_request, session_uid=UID, session_gid=GID, actor="session:test",
            post=recorded.post,
        )  # fmt: skip
        supervisors.append(supervisor)
        supervisor.start()

    def held(lost: list[str]) -> list[tuple[str, Hold]]:
        made.lost.append(lost)
        return more(lost)

    keeper, inits = pair()
    link = LaunchLink(serve, supervise, lambda: None, lambda: made.ended.append("lost"), held=held)
    made = Session(link, recorded)
    try:
        with inits:
            assert await link.prepare(plan, Waiting(*start_launcher(), inits.fileno())) == []
        yield made
    finally:
        keeper.close()
        if link.init:
            os.kill(link.init, signal.SIGKILL)
        for supervisor in supervisors:
            supervisor.stop()


def inside(
    test: Callable[[Session], Awaitable[None]],
    tmp_path: Path,
    more: Callable[[list[str]], list[tuple[str, Hold]]] = lambda lost: [],
    **changes: object,
) -> None:
    require(process.Capability.SYS_ADMIN in process.capabilities(), "CAP_SYS_ADMIN")
    offer = probe()
    require(offer.notify and landlock.abi() > 0, "seccomp user notification and Landlock")
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)
    plan = replace(
        PLAN, env=ENV, uid=UID, gid=GID, doors=("proxy",), capture="none", pids=offer.pids, hide=(), sockets=(),
        empty_run=False, hold=changes.pop("hold", ()), bind=(), empty_file="/dev/null",
        read=("/usr", "/bin", "/lib", "/lib64", "/etc", "/proc"),
        write=changes.pop("write", ("/tmp",)),
        devices=("/dev/null", "/dev/tty", "/dev/pts"), connect_ports=None, proofs=Proofs(), **changes,
    )  # fmt: skip

    async def main() -> None:
        async with session(plan, more) as made:
            await asyncio.wait_for(test(made), 120)

    asyncio.run(main())


def test_every_command_has_the_same_confinement_account_and_parent_and_three_descriptors(tmp_path: Path) -> None:
    async def compare(made: Session) -> None:
        first, second = await made.run("sh", "-c", SELF), await made.run("sh", "-c", SELF)
        assert first == second
        status, text = first
        lines = text.split("\n")
        assert status == 0
        assert lines[0] == "leads, below 1"
        for kind, line in zip(("ipc", "mnt", "net", "pid"), lines[1:5], strict=False):
            assert line not in {"", os.readlink(f"/proc/self/ns/{kind}")}
        assert {f"Uid:\t{UID}\t{UID}\t{UID}\t{UID}", "NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t" + "0" * 16} <= set(
            lines
        )
        assert {"0 1 2 3 closed", "WORD=given"} <= set(lines)

    inside(compare, tmp_path)


def test_a_further_command_is_decided_by_the_ring(tmp_path: Path) -> None:
    async def refused(made: Session) -> None:
        assert (await made.run("sh", "-c", "true"))[0] == 0
        status, text = await made.run("rm", "/etc/nothing")
        assert status == 126
        assert "denied by delete-system" in text
        assert made.recorded.rules() == ["delete-system"]
        assert (await made.run("/no/such/program"))[0] == 127

    inside(refused, tmp_path)


def test_the_doors_are_opened_again_where_the_session_is_and_not_where_they_are_taken(tmp_path: Path) -> None:
    async def reopened(made: Session) -> None:
        doors, listeners, missing = await made.link.reopen(3128)
        assert (doors, missing) == (["proxy", "mark"], "")
        with pytest.raises(LaunchFailed, match=r"cannot be opened again.*in use"):
            await made.link.reopen(3128)
        ports = []
        for listener in listeners:
            with socket.socket(fileno=listener) as door:
                ports.append(door.getsockname()[1])
        assert ports[0] == 3128
        with socket.socket() as outside:
            assert outside.connect_ex(("127.0.0.1", ports[1])) == errno.ECONNREFUSED, "the session's loopback, not ours"
        assert (await made.run("true"))[0] == 0, "init goes on as before"

    inside(reopened, tmp_path, jail="root")


def test_the_process_id_is_the_one_outside_and_its_status_is_the_commands(tmp_path: Path) -> None:
    async def signalled(made: Session) -> None:
        started, read = await made.start("sleep", "60")
        assert Path(f"/proc/{started.pid}/status").read_text().count(f"\nUid:\t{UID}\t")
        os.killpg(started.pid, signal.SIGTERM)
        assert os.WTERMSIG(await asyncio.wait_for(started.status, 60)) == signal.SIGTERM
        os.close(read)

    inside(signalled, tmp_path)


def test_a_terminal_among_the_streams_is_the_controlling_one(tmp_path: Path) -> None:
    async def on_terminal(made: Session) -> None:
        inner, slave = os.openpty()
        try:
            status, text = await made.run("sh", "-c", "tty; test -t 0 && echo here > /dev/tty", stdin=slave)
            assert (status, text) == (0, os.ttyname(slave) + "\n")
            assert os.read(inner, 100) == b"here\r\n"
        finally:
            os.close(slave)
            os.close(inner)

    inside(on_terminal, tmp_path)


def test_a_workdir_that_cannot_be_had_is_said_and_nothing_runs(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)

    async def nowhere(made: Session) -> None:
        for workdir in (str(closed), str(tmp_path / "missing")):
            with pytest.raises(NoWorkdir, match="for the session's user"):
                await made.start("true", workdir=workdir)
        assert await made.run("pwd", workdir="/tmp") == (0, "/tmp\n")

    inside(nowhere, tmp_path)


def test_with_the_init_everything_ends_and_nothing_more_is_started(tmp_path: Path) -> None:
    async def killed(made: Session) -> None:
        (one, first), (two, second) = await made.start("sleep", "60"), await made.start("sh", "-c", "setsid sleep 60")
        os.kill(made.link.init, signal.SIGKILL)
        assert [await asyncio.wait_for(started.status, 60) for started in (one, two)] == [signal.SIGKILL] * 2
        for read in (first, second):
            with os.fdopen(read) as out:
                assert await asyncio.to_thread(out.read) == ""  # ended: nobody holds the other end
        assert made.ended == ["lost"]
        with pytest.raises(LaunchFailed):
            await made.start("true")

    inside(killed, tmp_path)


def test_a_protected_place_that_is_gone_when_it_is_to_be_held_is_told_and_the_others_are_held(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    held = tuple((str(tmp_path / name), Hold.READ_ONLY) for name in ("gone", "there", "gone/below"))

    async def told(made: Session) -> None:
        assert made.lost == [[held[0][0], held[2][0]], []]  # the second time: what is in sight and open
        assert (await made.run("true"))[0] == 0

    inside(told, tmp_path, hold=held)


def test_a_repository_that_is_moved_while_the_session_starts_is_held_where_it_is(tmp_path: Path) -> None:
    """The move comes between the search and the mounts, and another one after these."""
    open_way(tmp_path)
    place = tmp_path / "tree"
    for name in ("a/repo/.git/hooks", "b", "c"):
        (place / name).mkdir(parents=True)
    wanted, roots = protected([".git/hooks/**"], "/nowhere"), (str(place),)
    rounds = Rounds(lambda: compile_protection(wanted, roots, "/nowhere", Bounds()))
    moves = iter([("a", "b"), ("b", "c")])

    def more(lost: list[str]) -> list[tuple[str, Hold]]:
        for old, new in moves:
            (place / old / "repo").rename(place / new / "repo")
            break
        return rounds.more(lost)

    async def attacked(made: Session) -> None:
        hooks = place / "c/repo/.git/hooks"
        status, _ = await made.run("sh", "-c", f"cd {hooks} && ! touch x && ! mkdir y && ! mv {hooks} {place}/z")
        assert (status, os.listdir(hooks)) == (0, [])
        assert rounds.weak != ()

    for path in (place, *place.rglob("*")):
        path.chmod(0o777)
    inside(attacked, tmp_path, more, hold=rounds.protection.held, write=(str(place),))
