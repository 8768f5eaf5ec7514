"""Namespaces and mounts, each made in a child and gone with it."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from agent.linux import namespaces, process
from tests.conftest import require
from tests.linux.forked import outcome


def need_admin() -> None:
    require(process.Capability.SYS_ADMIN in process.capabilities(), "CAP_SYS_ADMIN")


def test_loopback_works_in_a_fresh_network_namespace_once_it_is_up() -> None:
    need_admin()
    with socket.create_server(("127.0.0.1", 0)) as outside:
        address = outside.getsockname()

        def piece() -> None:
            namespaces.unshare(namespaces.NEWNET)
            namespaces.bring_loopback_up()
            namespaces.bring_loopback_up()
            with socket.create_server(("127.0.0.1", 0)) as server:
                socket.create_connection(server.getsockname(), timeout=60).close()
            socket.create_connection(address, timeout=60)

        assert outcome(piece) == errno.ECONNREFUSED, "the listener of the other namespace is out of reach"


def test_there_is_no_route_out_of_a_fresh_network_namespace() -> None:
    need_admin()

    def piece() -> None:
        namespaces.unshare(namespaces.NEWNET)
        namespaces.bring_loopback_up()
        socket.create_connection(("192.0.2.1", 80), timeout=60)

    assert outcome(piece) == errno.ENETUNREACH


def test_mounts_cover_and_protect_in_their_own_namespace_only(tmp_path: Path) -> None:
    need_admin()
    for name in ("secret", "config"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)

    def piece() -> None:
        namespaces.unshare(namespaces.NEWNS)
        namespaces.make_mounts_private()
        namespaces.tmpfs(str(tmp_path / "secret"), mode=0o700, size="64k")
        assert list((tmp_path / "secret").iterdir()) == []
        (tmp_path / "secret" / "own").write_text("x")
        namespaces.bind(str(tmp_path / "config"), str(tmp_path / "config"))
        namespaces.make_read_only(os.open(tmp_path / "config", os.O_PATH))
        assert (tmp_path / "config" / "file").read_text() == "config"
        (tmp_path / "config" / "file").write_text("x")

    assert outcome(piece) == errno.EROFS
    assert (tmp_path / "secret" / "file").read_text() == "secret"
    assert not (tmp_path / "secret" / "own").exists()


def test_a_namespace_is_entered_by_its_descriptor() -> None:
    need_admin()

    def piece() -> None:
        before = os.open("/proc/self/ns/net", os.O_RDONLY)
        first = os.readlink("/proc/self/ns/net")
        namespaces.unshare(namespaces.NEWNET)
        assert os.readlink("/proc/self/ns/net") != first
        namespaces.setns(before, namespaces.NEWNET)
        assert os.readlink("/proc/self/ns/net") == first

    assert outcome(piece) == 0


def test_the_root_of_a_mount_is_known_from_what_is_open(tmp_path: Path) -> None:
    need_admin()
    (tmp_path / "below").mkdir()

    def told() -> list[bool | None]:
        found = list[bool | None]()
        for path in (tmp_path, tmp_path / "below"):
            place = os.open(path, os.O_PATH)
            found.append(namespaces.is_mount_root(place))
            os.close(place)
        return found

    def piece() -> None:
        namespaces.unshare(namespaces.NEWNS)
        namespaces.make_mounts_private()
        assert told() == [False, False]
        namespaces.bind(str(tmp_path), str(tmp_path))
        assert told() == [True, False]

    assert outcome(piece) == 0
