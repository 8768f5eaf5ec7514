"""What a session may call its own without a network namespace: tried with names that lead to somebody else's."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.linux import namespaces, process, seccomp
from tests.conftest import require
from tests.enforce.commands.filtered import GID, UID
from tests.enforce.egress.connected import World, accept, outcome, say

REFUSED = os.strerror(errno.ECONNREFUSED)
RESOLVER = "127.0.0.11"  # where Docker has its name server, behind a rule that translates the address


@pytest.fixture(autouse=True)
def _needs() -> None:
    require(os.geteuid() == 0, "root, to give the session a uid of its own")
    require(seccomp.socket_making_available(), "seccomp user notification with ADDFD_FLAG_SEND")


@pytest.fixture
def translated() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Calls what it is given in a network namespace of its own (which belongs to a thread)."""
    with ThreadPoolExecutor(1) as thread:

        def enter() -> None:
            namespaces.unshare(namespaces.NEWNET)
            namespaces.bring_loopback_up()

        thread.submit(enter).result()
        yield lambda act: thread.submit(act).result()


def translate(port: int, to: int) -> None:
    rules = "add table ip t; add chain ip t out { type nat hook output priority -100; };"
    rules += f" add rule ip t out ip daddr {RESOLVER} tcp dport {port} dnat to {RESOLVER}:{to}"
    subprocess.run(["nft", rules], check=True)


def test_a_server_at_an_address_that_the_machine_translates_opens_no_way_to_what_is_behind(
    translated: Callable[[Callable[[], None]], None],
) -> None:
    def attack() -> None:
        world = World()
        with socket.create_server((RESOLVER, 0)) as resolver:
            resolver.settimeout(0.2)
            translate(5353, resolver.getsockname()[1])

            def act() -> None:
                with socket.socket() as server, socket.socket() as client:
                    say(outcome(lambda: server.bind((RESOLVER, 5353))))
                    say(outcome(server.listen))
                    client.connect((RESOLVER, 5353))
                    client.sendall(b"secret")
                    client.recv(1)

            session = world.start(act)
            arrived = accept(world.forwarded)
            with pytest.raises(TimeoutError):
                resolver.accept()
            assert arrived.destination == (RESOLVER, 5353)
            arrived.sock.close()
            assert session.finish().out.splitlines()[0] == os.strerror(errno.EADDRNOTAVAIL)
            assert world.recorded.seen() == [(f"{RESOLVER}:5353", "listen-outside")]
        world.close()

    translated(attack)


@pytest.mark.parametrize(
    ("theirs", "own"),
    [(socket.SOCK_STREAM, socket.SOCK_SEQPACKET), (socket.SOCK_SEQPACKET, socket.SOCK_STREAM)],
)
def test_an_abstract_name_is_the_sessions_for_the_type_that_it_bound_only(theirs: int, own: int) -> None:
    name = f"\0parhelia-of-two-types-{os.getpid()}"
    world = World()
    with socket.socket(socket.AF_UNIX, theirs) as machine:
        machine.bind(name)
        machine.listen()
        machine.settimeout(0.2)

        def act() -> None:
            with socket.socket(socket.AF_UNIX, own) as mine, socket.socket(socket.AF_UNIX, theirs) as client:
                mine.bind(name)
                mine.listen()
                say(outcome(lambda: client.connect(name)))
                with socket.socket(socket.AF_UNIX, own) as other:
                    say(outcome(lambda: other.connect(name)))

        assert world.run(act).out.splitlines() == [REFUSED, "ok"]
        with pytest.raises(TimeoutError):
            machine.accept()
    assert world.recorded.seen() == [(f"unix:{name}".replace("\0", "@"), "unix-socket")]
    world.close()


def test_a_full_queue_of_a_unix_server_is_not_waited_for_and_leaves_the_socket_as_it_was() -> None:
    world, abstract = World(), f"\0full-of-the-test-{os.getpid()}"

    def act() -> None:
        for name in ("full.sock", abstract):
            with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
                server.bind(name)
                server.listen(0)
                first.connect(name)
                with socket.socket(socket.AF_UNIX) as second:
                    second.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("qq", 7, 0))
                    waits = second.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16)
                    say(outcome(lambda second=second, name=name: second.connect(name)))
                    say(second.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16) == waits)
                    server.accept()
                    say(outcome(lambda second=second, name=name: second.connect(name)))

    said = world.run(act).out.splitlines()
    assert said == [os.strerror(errno.EAGAIN), "True", "ok"] * 2
    world.close()


KEEPING = """
import os, resource, socket
from agent.enforce.egress.own_sockets import OwnSockets
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
own = OwnSockets()
made = [socket.socket(socket.AF_UNIX) for _ in range(150)]
inodes = [os.fstat(sock.fileno()).st_ino for sock in made]
for sock in made:
    own.keep(sock)
print([own.get(inode) is not None for inode in inodes].index(True), sum(own.get(inode) is not None for inode in inodes))
"""


def test_copies_leave_the_guard_half_of_its_descriptors() -> None:
    # A process of its own: the limit is a process's, and what others of this one have open counts.
    kept = subprocess.run([sys.executable, "-c", KEEPING], capture_output=True, text=True, check=True)
    assert kept.stdout == "22 128\n"


def elsewhere(tree: str) -> tuple[int, int]:
    """A process of the session's user in a mount namespace of its own, where `tree` is another directory and a server
    listens in it; its pid, and a descriptor that is readable when somebody has connected."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            namespaces.unshare(namespaces.NEWNS)
            namespaces.make_mounts_private()
            namespaces.tmpfs(tree, mode=0o777, size="64k")
            os.setresgid(GID, GID, GID)
            os.setresuid(UID, UID, UID)
            process.set_dumpable(True)
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(f"{tree}/private.sock")
                server.listen()
                os.write(tell, b"1")
                server.accept()
                os.write(tell, b"2")
                signal.pause()
        finally:
            os._exit(1)
    os.close(tell)
    assert os.read(told, 1) == b"1"
    return pid, told


def test_a_socket_in_another_mount_namespace_is_not_one_of_the_sessions_trees() -> None:
    """Containers of one pod may share their processes: /proc/PID/root leads to a path that looks like the session's."""
    world = World()
    tree = str(world.tree)
    pid, told = elsewhere(tree)
    try:

        def act() -> None:
            for path in (f"/proc/{pid}/root{tree}/private.sock", f"/proc/{pid}/cwd/../..{tree}/private.sock"):
                with socket.socket(socket.AF_UNIX) as sock:
                    say(outcome(lambda sock=sock, path=path: sock.connect(path)))
            with socket.socket(socket.AF_UNIX) as sock:
                say(outcome(lambda: sock.bind(f"/proc/{pid}/root{tree}/mine.sock")))

        said = world.run(act).out.splitlines()
        assert select.select([told], [], [], 0.2)[0] == [], "it was reached"
        assert said[0] == said[2] == os.strerror(errno.EACCES)
        assert (f"unix:{tree}/private.sock", "unix-socket") in world.recorded.seen()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(told)
        world.close()
