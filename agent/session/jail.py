"""The inside of a network jail: every address local, and the doors through which connections reach the egress process.

Run in the session's fresh network namespace, before any right is dropped. Rules kept here: a door that was asked for
and cannot be opened is an error, never left out; 127.0.0.0/8 and ::1 belong to the session and are never captured;
where the machine has no IPv6 there is none in the jail either, and nothing is missing. No socket may be shared
(SO_REUSEPORT, nor SO_REUSEADDR, which is as much in gVisor), so that nobody can take a door's place or listen beside
it.

How capture is to be had differs (`Capture`); what is not captured goes nowhere, because the namespace has no way out.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress

from agent.linux import netlink, tproxy
from agent.session.doors import Capture, Door

BACKLOG = 1024
CAPTURE_PORT = 3129
"""Where the transparent listeners are, on loopback; the session's connections to it are refused like any other."""
DNS_PORT = 53
COMMON_PORTS = (22, 80, 443)
"""Captured where not every port can be, on loopback too (and refused there). Below 1024, where the session could serve
nothing itself."""
TRIAL_SECONDS = 1.0
_ELSEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}  # RFC 5737, RFC 3849
_LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}

type Opened = list[tuple[Door, socket.socket]]


def families() -> list[socket.AddressFamily]:
    """The address families that work here: IPv4, and IPv6 where the kernel has it and no sysctl takes it away."""
    found = [socket.AF_INET]
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as attempt:
            attempt.bind((_LOOPBACK[socket.AF_INET6], 0))
        found.append(socket.AF_INET6)
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
    return found


def open_doors(
    doors: Collection[Door],
    capture: Capture,
    proxy_port: int,
    present: Sequence[socket.AddressFamily] = (),
) -> Opened:
    """Listening sockets for all of `doors`, each with its kind, in the families `present` (none: in all that work
    here). Raises OSError where one cannot be had; the caller closes what it is given."""
    opened: Opened = []
    try:
        opened.extend(_open(doors, capture, proxy_port, present or families()))
    except OSError:
        close(opened)
        raise
    return opened


def close(opened: Opened) -> None:
    """Close this process's ends."""
    for _, listener in opened:
        listener.close()


def best_capture() -> Capture:
    """What can be captured in this namespace, found by doing it and connecting. Changes the namespace for good."""
    for capture in (Capture.EVERY_PORT, Capture.COMMON_PORTS):
        try:
            opened = open_doors([Door.CAPTURE], capture, 0)
        except OSError:
            continue
        try:
            if all(_arrives(listener) for _, listener in opened):
                return capture
        except OSError:
            continue
        finally:
            close(opened)
    return Capture.NONE


def _open(
    doors: Collection[Door], capture: Capture, proxy_port: int, present: Sequence[socket.AddressFamily]
) -> Iterator[tuple[Door, socket.socket]]:
    if Door.PROXY in doors:
        yield Door.PROXY, _listen(socket.AF_INET, _LOOPBACK[socket.AF_INET], proxy_port)
    if Door.MARK in doors:
        yield Door.MARK, _listen(socket.AF_INET, _LOOPBACK[socket.AF_INET], 0)
    if Door.CAPTURE in doors and capture is not Capture.NONE:
        local = _made_local(present)
        if capture is Capture.EVERY_PORT:
            for family in local:
                yield Door.CAPTURE, tproxy.transparent_listener(family, CAPTURE_PORT, BACKLOG)
            tproxy.capture_tcp(CAPTURE_PORT, spare=(DNS_PORT,))
        else:
            for family in local:
                for port in COMMON_PORTS:
                    yield Door.CAPTURE, _listen(family, "", port)
    for family in present:
        if Door.DNS_TCP in doors:
            yield Door.DNS_TCP, _listen(family, "", DNS_PORT)
        if Door.DNS_UDP in doors:
            yield Door.DNS_UDP, _datagrams(family, DNS_PORT)


def _made_local(present: Sequence[socket.AddressFamily]) -> Sequence[socket.AddressFamily]:
    """Make every address local; returns the families that have been. Where routes are refused (gVisor) IPv4 is had by
    an address, and IPv6 stays without any way at all."""
    try:
        for family in present:
            with suppress(FileExistsError):  # an attempt before this one
                netlink.make_every_address_local(family)
    except PermissionError:
        raise
    except OSError:
        with suppress(FileExistsError):
            netlink.claim_every_address(_ELSEWHERE[socket.AF_INET])
        return [socket.AF_INET]
    return present


def _listen(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _datagrams(family: socket.AddressFamily, port: int) -> socket.socket:
    """Not reusable: a second socket on the port is refused, whatever address it names (socket(7))."""
    receiver = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        receiver.bind(("", port))
    except OSError:
        receiver.close()
        raise
    return receiver


def _arrives(listener: socket.socket) -> bool:
    """True where a connection to an address elsewhere arrives at `listener` under that address."""
    own_port = listener.getsockname()[1]
    target = (_ELSEWHERE[listener.family], COMMON_PORTS[-1] if own_port == CAPTURE_PORT else own_port)
    listener.settimeout(TRIAL_SECONDS)
    with socket.socket(listener.family, socket.SOCK_STREAM) as client:
        client.settimeout(TRIAL_SECONDS)
        client.connect(target)
        accepted, _ = listener.accept()
        with accepted:
            return bool(accepted.getsockname()[:2] == target)
