"""From the ends of a connection to the inode of the session's socket, in the session's network namespace.

The kernel is asked for the one connection where it can be (sock_diag, through a netlink socket that was opened in that
namespace: the cost does not grow with how many connections there are); else, and for datagrams, the tables of /proc are
searched as text: they list every connection, closed ones too.

Rules kept here: a socket is found by both its ends, or by its own where no other has that; two that could be meant are
none.

Sources: proc_net_tcp (Documentation/networking/proc_net_tcp.rst: addresses are 32-bit words in host byte order, state
0A is LISTEN; the tables of UDP have the same columns), sock_diag(7), setns(2) (a socket stays in the network namespace
that it was made in).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, ip_address
from typing import Final

from agent.linux import sock_diag
from agent.linux.namespaces import setns

type Endpoint = tuple[str, int]

_LISTEN: Final = b"0A"
_MAPPED: Final = bytes(10) + b"\xff\xff"
_ANYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104  (as a socket that is bound to no address is listed)


class SocketTables:
    """For one thread, which may enter other network namespaces for a moment."""

    def __init__(self) -> None:
        self._namespace: tuple[int, int] | None = None
        self._link: socket.socket | None = None

    def streams(self, wanted: Mapping[Endpoint, Endpoint], anchor: int) -> dict[Endpoint, int]:
        """The inodes of TCP sockets by their own end, of those wanted (own end to the other one). `anchor`: a process
        in the namespace."""
        found: dict[Endpoint, int] = {}
        link = self._link_into(anchor) if wanted else None
        if link is not None:
            for source, destination in wanted.items():
                with suppress(OSError, ValueError, OverflowError):
                    if inode := sock_diag.connection(link, source, destination):
                        found[source] = inode
        left = {source: destination for source, destination in wanted.items() if source not in found}
        return found | _listed_streams(left, anchor)

    def datagrams(self, wanted: Iterable[Endpoint], anchor: int) -> dict[Endpoint, int]:
        """The same for UDP: a socket that is bound to the address, else the only one on its port of every address."""
        wanted = tuple(wanted)
        tables = _read(("udp", "udp6") if wanted else (), anchor)
        found: dict[Endpoint, int] = {}
        for address, port in wanted:
            exact = {int(fields[9]) for fields in _rows(tables, address, port)}
            near = {int(fields[9]) for anywhere in _ANYWHERE for fields in _rows(tables, anywhere, port)}
            if inode := _alone(exact or near):
                found[address, port] = inode
        return found

    def _link_into(self, anchor: int) -> socket.socket | None:
        """A netlink socket in the namespace of `anchor`, None where none is to be had."""
        try:
            there = os.stat(f"/proc/{anchor}/ns/net")  # noqa: PTH116
        except OSError:
            return None
        namespace = there.st_dev, there.st_ino
        if namespace != self._namespace:
            self._namespace, self._link = namespace, None
            with suppress(OSError):  # no CAP_SYS_ADMIN there (setns(2)), or no sock_diag (gVisor)
                self._link = _open_in(anchor)
        return self._link


def _open_in(anchor: int) -> socket.socket:
    """Raises OSError."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(f"/proc/{anchor}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.path.samestat(os.fstat(here), os.fstat(there)):
                return sock_diag.open_link()
            setns(there, os.CLONE_NEWNET)
            try:
                return sock_diag.open_link()
            finally:
                setns(here, os.CLONE_NEWNET)
        finally:
            os.close(there)
    finally:
        os.close(here)


def _listed_streams(wanted: Mapping[Endpoint, Endpoint], anchor: int) -> dict[Endpoint, int]:
    tables = _read(("tcp", "tcp6") if wanted else (), anchor)
    found: dict[Endpoint, int] = {}
    for source, destination in wanted.items():
        rows = [fields for fields in _rows(tables, *source) if fields[3] != _LISTEN]
        other_end = {spelling for _, spelling in _spellings(*destination)}
        exact = {int(fields[9]) for fields in rows if fields[2] in other_end}
        # where the other end was rewritten on the way, the session's own must be the only one
        if inode := _alone(exact) or _alone({int(fields[9]) for fields in rows}):
            found[source] = inode
    return found


def _alone(inodes: set[int]) -> int:
    """The inode where it is one and no other; 0 is a socket that nobody holds any more."""
    return next(iter(inodes)) if len(inodes) == 1 else 0


def _read(tables: Iterable[str], anchor: int) -> dict[bool, bytes]:
    """The tables as they are, by whether they are those of IPv6."""
    found = {False: b"", True: b""}
    for table in tables:
        with suppress(OSError), open(f"/proc/{anchor}/net/{table}", "rb") as file:
            found[table.endswith("6")] = file.read()
    return found


def _rows(tables: Mapping[bool, bytes], address: str, port: int) -> Iterator[list[bytes]]:
    """The rows of sockets whose own end this is, as fields."""
    for six, spelling in _spellings(address, port):
        table, wanted = tables[six], b": " + spelling + b" "
        at = table.find(wanted)
        while at >= 0:
            end = table.find(b"\n", at)
            fields = table[table.rfind(b"\n", 0, at) + 1 : end if end >= 0 else len(table)].split()
            if len(fields) >= 10:
                yield fields
            at = table.find(wanted, at + 1)


def _spellings(address: str, port: int) -> list[tuple[bool, bytes]]:
    """``127.0.0.1``, 8080 as ``0100007F:1F90``, and as the table of IPv6 has it; each with which table that is."""
    parsed = ip_address(address)
    packed = [parsed.packed, _MAPPED + parsed.packed] if isinstance(parsed, IPv4Address) else [parsed.packed]
    return [(len(raw) == 16, b"%b:%04X" % (_words(raw), port)) for raw in packed]


def _words(packed: bytes) -> bytes:
    return b"".join(b"%08X" % word for word in struct.unpack(f"={len(packed) // 4}I", packed))
