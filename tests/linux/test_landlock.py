"""Landlock, shown by attempts that must fail."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.linux import landlock, process
from agent.linux.landlock import Fs, Net, Ruleset, Scope
from tests.conftest import require
from tests.linux.forked import outcome


@pytest.fixture(autouse=True)
def _needs_landlock() -> None:
    require(landlock.abi() >= 1, "Landlock")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("granted", "readable", "closed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
        (tmp_path / name / "program").write_bytes(Path("/bin/true").read_bytes())
        (tmp_path / name / "program").chmod(0o755)
    return tmp_path


def confined(tree: Path, piece: Callable[[], object], *, net: Net = landlock.NO_NET, scope: Scope = landlock.NO_SCOPE,
             port: int | None = None) -> int:  # fmt: skip
    def restricted() -> None:
        process.set_no_new_privs()
        with Ruleset(net=net, scope=scope) as rules:
            rules.allow_path(str(tree / "granted"), landlock.WRITE)
            rules.allow_path(str(tree / "readable"), landlock.READ)
            for system in ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache"):
                if os.path.exists(system):
                    rules.allow_path(system, landlock.READ)
            rules.allow_path("/dev/null", landlock.DEVICE)
            if port is not None:
                rules.allow_tcp_connect(port)
            rules.restrict_self()
        piece()

    return outcome(restricted)


ALLOWED: list[tuple[str, Callable[[Path], object]]] = [
    ("read a granted file", lambda t: (t / "granted/file").read_text()),
    ("write a granted file", lambda t: (t / "granted/file").write_text("new")),
    ("make, rename and remove in the granted tree", lambda t: (
        (t / "granted/d").mkdir(), (t / "granted/file").rename(t / "granted/d/moved"), (t / "granted/d/moved").unlink(),
        (t / "granted/d").rmdir(), os.symlink("x", t / "granted/l"), os.mkfifo(t / "granted/f"))),
    ("read and list a readable tree", lambda t: ((t / "readable/file").read_text(), list((t / "readable").iterdir()))),
    ("run from a readable tree", lambda t: os.execv(t / "readable/program", ["program"])),
    ("write to the null device", lambda t: Path("/dev/null").write_text("x")),
]  # fmt: skip

DENIED: list[tuple[str, int, Callable[[Path], object]]] = [
    ("read outside", errno.EACCES, lambda t: (t / "closed/file").read_text()),
    ("list outside", errno.EACCES, lambda t: os.listdir(t / "closed")),
    ("write outside", errno.EACCES, lambda t: (t / "closed/file").write_text("x")),
    ("write in a readable tree", errno.EACCES, lambda t: (t / "readable/file").write_text("x")),
    ("truncate in a readable tree", errno.EACCES, lambda t: os.truncate(t / "readable/file", 0)),
    ("make in a readable tree", errno.EACCES, lambda t: (t / "readable/d").mkdir()),
    ("remove in a readable tree", errno.EACCES, lambda t: (t / "readable/file").unlink()),
    ("rename out of the granted tree", errno.EXDEV, lambda t: (t / "granted/file").rename(t / "closed/x")),
    ("link into the granted tree", errno.EXDEV, lambda t: os.link(t / "closed/file", t / "granted/x")),
    ("run from outside", errno.EACCES, lambda t: os.execv(t / "closed/program", ["program"])),
    ("read through a symlink in the granted tree", errno.EACCES,
     lambda t: (os.symlink(t / "closed/file", t / "granted/s"), (t / "granted/s").read_text())),
    ("make a device in the granted tree", errno.EACCES, lambda t: os.mknod(t / "granted/n", 0o20600, os.makedev(1, 3))),
    ("read the parent", errno.EACCES, os.listdir),
]  # fmt: skip


@pytest.mark.parametrize(("what", "piece"), ALLOWED)
def test_what_is_granted_works(tree: Path, what: str, piece: Callable[[Path], object]) -> None:
    assert confined(tree, lambda: piece(tree)) == 0


@pytest.mark.parametrize(("what", "refusal", "piece"), DENIED)
def test_what_is_not_granted_is_refused(tree: Path, what: str, refusal: int, piece: Callable[[Path], object]) -> None:
    if "truncate" in what:
        require(landlock.abi() >= 3, "Landlock ABI 3")
    if refusal == errno.EXDEV:
        assert confined(tree, lambda: piece(tree)) in (errno.EXDEV, errno.EACCES)
    else:
        assert confined(tree, lambda: piece(tree)) == refusal


def test_a_restriction_cannot_be_widened(tree: Path) -> None:
    def widen() -> None:
        with Ruleset(fs=Fs.READ_FILE) as rules:
            rules.restrict_self()
        (tree / "closed/file").read_text()

    assert confined(tree, widen) == errno.EACCES


def test_without_no_new_privs_an_unprivileged_restriction_is_refused() -> None:
    def piece() -> None:
        if os.geteuid() == 0:
            os.setresuid(64321, 64321, 64321)
        with Ruleset() as rules:
            rules.restrict_self()

    assert outcome(piece) == errno.EPERM


def test_tcp_reaches_only_the_granted_port(tree: Path) -> None:
    require(landlock.abi() >= 4, "Landlock with TCP rules")
    with socket.create_server(("127.0.0.1", 0)) as granted, socket.create_server(("127.0.0.1", 0)) as other:
        port = granted.getsockname()[1]

        def connect(server: socket.socket) -> Callable[[], object]:
            address = server.getsockname()  # not create_connection: it imports, from where nothing is granted
            return lambda: socket.socket().connect(address)

        assert confined(tree, connect(granted), net=Net.CONNECT_TCP, port=port) == 0
        assert confined(tree, connect(other), net=Net.CONNECT_TCP, port=port) == errno.EACCES


def test_a_tcp_port_is_bound_only_where_granted(tree: Path) -> None:
    require(landlock.abi() >= 4, "Landlock with TCP rules")

    def bind() -> None:
        socket.socket().bind(("127.0.0.1", 0))

    assert confined(tree, bind) == 0
    assert confined(tree, bind, net=Net.BIND_TCP) == errno.EACCES


def test_signals_do_not_leave_the_scope(tree: Path) -> None:
    require(landlock.abi() >= 6, "Landlock with scopes")
    parent = os.getpid()
    assert confined(tree, lambda: os.kill(parent, 0)) == 0
    assert confined(tree, lambda: os.kill(parent, 0), scope=Scope.SIGNAL) == errno.EPERM
    assert confined(tree, lambda: os.kill(os.getpid(), 0), scope=Scope.SIGNAL) == 0
    assert confined(tree, lambda: os.kill(os.getpid(), signal.SIGTERM), scope=Scope.SIGNAL) == -signal.SIGTERM


def test_abstract_sockets_outside_the_scope_are_not_reached(tree: Path) -> None:
    require(landlock.abi() >= 6, "Landlock with scopes")
    name = f"\0parhelia-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()

        def connect() -> None:
            socket.socket(socket.AF_UNIX).connect(name)

        assert confined(tree, connect) == 0
        assert confined(tree, connect, scope=Scope.ABSTRACT_UNIX_SOCKET) == errno.EPERM


def test_rights_grow_with_the_abi_and_never_beyond_it() -> None:
    assert landlock.fs_rights(0) == Fs(0)
    assert landlock.fs_rights(1) == Fs((1 << 13) - 1)
    assert landlock.fs_rights(2) & ~landlock.fs_rights(1) == Fs.REFER
    assert landlock.fs_rights(3) & ~landlock.fs_rights(2) == Fs.TRUNCATE
    assert landlock.fs_rights(5) & ~landlock.fs_rights(4) == Fs.IOCTL_DEV
    assert (landlock.net_rights(3), landlock.net_rights(4)) == (Net(0), Net.BIND_TCP | Net.CONNECT_TCP)
    assert (landlock.scopes(5), landlock.scopes(6)) == (Scope(0), Scope.ABSTRACT_UNIX_SOCKET | Scope.SIGNAL)


def test_a_descriptor_may_stand_for_the_path_and_stays_open(tree: Path) -> None:
    descriptor = os.open(tree / "granted", os.O_PATH)
    with Ruleset() as rules:
        rules.allow_path(descriptor, landlock.READ)
    os.fstat(descriptor)
    os.close(descriptor)


def test_granting_what_is_not_there_is_an_error(tree: Path) -> None:
    with Ruleset() as rules, pytest.raises(FileNotFoundError):
        rules.allow_path(str(tree / "missing"), landlock.READ)
