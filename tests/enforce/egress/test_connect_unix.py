"""Unix sockets of a session without a network namespace: which are the session's own."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading

import pytest

from agent.linux import landlock
from tests.conftest import require
from tests.enforce.commands.filtered import UID
from tests.enforce.egress.connected import World, outcome, say
from tests.enforce.egress.test_connect import EACCES, REFUSED


def test_unix_sockets_of_the_session_work_and_show_its_user(world: World) -> None:
    abstract = f"\0abstract-of-the-test-{os.getpid()}"

    def act() -> None:
        os.umask(0o027)
        for name in ("relative.sock", str(world.tree / "absolute.sock"), abstract):
            server, client = (socket.socket(socket.AF_UNIX) for _ in range(2))
            server.bind(name)
            server.listen()
            client.connect(name)
            accepted, _ = server.accept()
            client.sendall(b"x")
            seen = [struct.unpack("3i", end.getsockopt(1, 17, 12))[1:] for end in (client, accepted)]
            say(accepted.recv(1), server.getsockname(), *seen)
        say(oct(os.stat("relative.sock").st_mode), os.stat("relative.sock").st_uid)

    finished = world.run(act)
    assert finished.err == ""
    user = f"({UID}, {UID})"
    assert [line.split(" ", 1)[0] for line in finished.out.splitlines()] == ["b'x'"] * 3 + ["0o140750"]
    assert all(line.endswith(f"{user} {user}") for line in finished.out.splitlines()[:3])
    assert finished.out.splitlines()[3].endswith(f" {UID}")


def test_a_socket_outside_the_writable_trees_is_refused_by_any_path_and_said(world: World) -> None:
    outside = world.directory / "machine.sock"
    with socket.socket(socket.AF_UNIX) as machine:
        machine.bind(str(outside))
        outside.chmod(0o777)
        machine.listen()
        (world.tree / "link").symlink_to(outside)

        def act() -> None:
            for path in (str(outside), "../machine.sock", "link", f"/proc/self/root{outside}"):
                with socket.socket(socket.AF_UNIX) as sock:
                    say(outcome(lambda sock=sock, path=path: sock.connect(path)))

        assert world.run(act).out.splitlines() == [EACCES] * 4
        assert world.recorded.seen() == [(f"unix:{outside}", "unix-socket")] * 4
        machine.settimeout(0.1)
        with pytest.raises(TimeoutError):
            machine.accept()
        world.reachable = (str(outside),)

        def allowed() -> None:
            with socket.socket(socket.AF_UNIX) as sock:
                say(outcome(lambda: sock.connect("link")))

        assert world.run(allowed).out.strip() == "ok"


def test_the_process_behind_a_unix_connection_is_known_afterwards(world: World) -> None:
    path = str(world.directory / "agent.sock")
    world.reachable = (path,)
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(path)
        os.chmod(path, 0o666)
        agent.listen()

        def act() -> None:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(path)
                say(os.getpid())

        finished = world.run(act)
        pid, uid, _ = struct.unpack("3i", agent.accept()[0].getsockopt(1, 17, 12))
    assert (world.connector.behind(pid), uid) == (int(finished.out), UID)
    assert world.connector.behind(1) == 1


def test_an_abstract_name_that_the_session_did_not_bind_is_refused_and_said(world: World) -> None:
    name = f"parhelia-of-the-machine-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as machine:
        machine.bind(f"\0{name}")
        machine.listen()

        def act() -> None:
            with socket.socket(socket.AF_UNIX) as sock:
                say(outcome(lambda: sock.connect(f"\0{name}")))

        assert world.run(act).out.strip() == REFUSED
    assert world.recorded.seen() == [(f"unix:@{name}", "unix-socket")]


def test_no_socket_is_bound_outside_the_writable_trees(world: World) -> None:
    open_to_all = world.directory / "everybodys"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)

    def act() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            say(outcome(lambda: sock.bind(str(open_to_all / "s"))))
        with socket.socket(socket.AF_UNIX) as sock:
            say(outcome(lambda: sock.bind("/proc/self/cwd/../everybodys/s")))

    assert world.run(act).out.splitlines() == [EACCES] * 2
    assert list(open_to_all.iterdir()) == []
    assert {rule for _, rule in world.recorded.seen()} == {"unix-socket"}


def test_swapping_a_link_under_a_bind_leads_nowhere_else(world: World) -> None:
    """The directory is judged, then swapped for a link to one that everybody may write: Landlock has the last word."""
    require(landlock.abi() >= 1, "Landlock")
    open_to_all = world.directory / "everybodys"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)

    def act() -> None:
        os.mkdir("good")
        os.symlink("good", "here")
        stop = threading.Event()

        def swap() -> None:
            while not stop.is_set():
                for target in (str(open_to_all), "good"):
                    os.symlink(target, "next")
                    os.rename("next", "here")

        thread = threading.Thread(target=swap)
        thread.start()
        for count in range(60):
            with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
                sock.bind(f"here/{count}")
        stop.set()
        thread.join()
        say(len(os.listdir("good")) > 0)

    assert world.run(act).out.strip() == "True"
    assert list(open_to_all.iterdir()) == []
