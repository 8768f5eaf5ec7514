"""The session's sockets, as far as the guard made them: our copies, until they are connected or listen.

Rules kept here: a socket is known by its inode, whatever number it has in the session; a copy is dropped as soon as
nothing of ours remains to be done with it, so that the end of the session's own is the end of the socket; copies are
bounded in number, and the oldest goes first (a later connect on it is refused); what the session listens on counts as
its own only while the kernel still shows that very socket listening.
"""

from __future__ import annotations

import os
import resource
import socket
from collections import OrderedDict
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

from agent.enforce.egress.sockaddr import Inet
from agent.linux import sock_diag
from agent.values import dataclass

MAX_KEPT = 1024
OWN_ADDRESSES = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
_LISTEN = b"0A"  # TCP_LISTEN, net/tcp_states.h
_LOCAL, _STATE, _INODE = 1, 3, 9  # columns of /proc/net/tcp
_CHUNK = 1 << 16


@dataclass(slots=True)
class Kept:
    """Our copy of a session's socket, made here and not yet connected or listening."""

    sock: socket.socket
    family: int
    inode: int
    bound: bool = False


class OwnSockets:
    """The table. For one thread only. `most`: copies kept at a time; never more than half of this process's own
    descriptors, so that a session with many sockets does not take the guard its last one."""

    def __init__(self, most: int = MAX_KEPT) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = most if soft == resource.RLIM_INFINITY else max(1, min(most, soft // 2))
        self._kept: OrderedDict[int, Kept] = OrderedDict()
        self._listening: OrderedDict[int, Inet] = OrderedDict()
        self._abstract: OrderedDict[tuple[int, bytes], int] = OrderedDict()
        self._done: OrderedDict[int, None] = OrderedDict()

    def keep(self, sock: socket.socket) -> Kept:
        """Take over `sock`, whose other copy the session gets."""
        inode = os.fstat(sock.fileno()).st_ino
        kept = self._kept[inode] = Kept(sock, int(sock.family), inode)
        self._done.pop(inode, None)
        while len(self._kept) > self._most:
            _, oldest = self._kept.popitem(last=False)
            oldest.sock.close()
        return kept

    def get(self, inode: int) -> Kept | None:
        return self._kept.get(inode)

    def drop(self, kept: Kept) -> None:
        """Nothing remains to be done with it."""
        if self._kept.pop(kept.inode, None) is not None:
            kept.sock.close()

    def finished(self, kept: Kept) -> None:
        """It is connected, or listens: drop the copy, and remember for the answer to a repeated call."""
        self.drop(kept)
        _remember(self._done, kept.inode, None, self._most)

    def is_finished(self, inode: int) -> bool:
        return inode in self._done

    def listens(self, kept: Kept, where: Inet) -> None:
        """The session listens with it at `where`."""
        _remember(self._listening, kept.inode, where, self._most)

    def is_listener(self, inode: int) -> bool:
        return inode in self._listening

    def listener_for(self, destination: Inet) -> Inet | None:
        """Where a connection to the loopback address `destination` meets a listener of the session's own, and no other.

        A server that wanted every address was given the IPv4 loopback; one that asks for it by ::1 is led there. No
        other loopback address is the session's own, whatever listens there: the machine may translate it (Docker's
        resolver is 127.0.0.11, port 53, by a rule that knows only the address).
        """
        address, port = destination.address, destination.port
        if address not in OWN_ADDRESSES:
            return None
        there = _meeting(address, port)
        if not there and isinstance(address, IPv6Address):
            address = IPv4Address("127.0.0.1")
            there = [inode for inode in _meeting(address, port) if self._family(inode) == socket.AF_INET6]
        if not there or any(inode not in self._listening for inode in there):
            return None
        return Inet(socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6, address, port)

    def _family(self, inode: int) -> int:
        where = self._listening.get(inode)
        return 0 if where is None else where.family

    def bound_abstract(self, name: bytes, kept: Kept) -> None:
        _remember(self._abstract, (kept.sock.type, name), kept.inode, self._most)

    def owns_abstract(self, name: bytes, kept: Kept) -> bool:
        """True where the abstract UNIX socket of this name is one that the session bound, and still is.

        A name is one socket's for each type: a stream and a packet socket of the same name are two (the kernel's
        unix_abstract_hash), so it must be of the type that `kept` connects to.
        """
        inode = self._abstract.get((kept.sock.type, name))
        if inode is None:
            return False
        with open("/proc/net/unix", "rb") as file:
            return any(len(row) > 7 and row[6] == b"%d" % inode for row in map(bytes.split, file))

    def release_abandoned(self, port: int) -> bool:
        """Drop copies bound to `port` that nobody but us holds any more. True where there was one.

        Asked only where a bind met an address in use, since it looks at every process's descriptors. A socket that is
        on its way in a message counts as abandoned: it only loses its further connect.
        """
        candidates = [kept for kept in self._kept.values() if kept.bound and _port(kept) == port]
        if not candidates:
            return False
        held = _held_elsewhere({kept.inode for kept in candidates})
        abandoned = [kept for kept in candidates if kept.inode not in held]
        for kept in abandoned:
            self.drop(kept)
        return bool(abandoned)

    def close(self) -> None:
        for kept in self._kept.values():
            kept.sock.close()
        self._kept.clear()


def listeners(port: int) -> list[tuple[int, IPv4Address | IPv6Address]]:
    """Inode and address of every socket that listens on TCP `port` in this network namespace."""
    try:
        return sock_diag.listeners(port)
    except OSError:  # a kernel without it: the same from /proc, more slowly
        return listeners_in_proc(port)


def listeners_in_proc(port: int) -> list[tuple[int, IPv4Address | IPv6Address]]:
    """`listeners` by proc_pid_net(5)."""
    found: list[tuple[int, IPv4Address | IPv6Address]] = []
    wanted = b"%04X" % port
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(FileNotFoundError), open(path, "rb", buffering=_CHUNK) as file:
            next(file, None)
            for line in file:
                row = line.split()
                if row[_STATE] != _LISTEN:
                    break  # listening sockets come first
                address, _, at = row[_LOCAL].partition(b":")
                if at == wanted:
                    found.append((int(row[_INODE]), _address(address.decode())))
    return found


def _meeting(address: IPv4Address | IPv6Address, port: int) -> list[int]:
    """The listening sockets that a connection to this address may meet."""
    return [inode for inode, at in listeners(port) if at == address or at.is_unspecified]


def _address(text: str) -> IPv4Address | IPv6Address:
    """The kernel prints each 32-bit word in the machine's order (little-endian on both that are supported)."""
    raw = bytes.fromhex(text)
    words = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    if len(words) == 4:
        return IPv4Address(words)
    address = IPv6Address(words)
    return address.ipv4_mapped or address


def _port(kept: Kept) -> int:
    name = kept.sock.getsockname()
    return int(name[1]) if isinstance(name, tuple) else 0


def _held_elsewhere(inodes: set[int]) -> set[int]:
    names = {f"socket:[{inode}]": inode for inode in inodes}
    held: set[int] = set()
    own = str(os.getpid())
    for process in os.listdir("/proc"):  # noqa: PTH208 - names are all that is needed
        if not process.isdigit() or process == own:
            continue
        with suppress(OSError):  # gone, or not the session's
            for descriptor in os.listdir(f"/proc/{process}/fd"):  # noqa: PTH208
                with suppress(OSError):
                    inode = names.get(os.readlink(f"/proc/{process}/fd/{descriptor}"))  # noqa: PTH115
                    if inode is not None:
                        held.add(inode)
    return held


def _remember[K, V](table: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    table[key] = value
    table.move_to_end(key)
    while len(table) > most:
        table.popitem(last=False)
