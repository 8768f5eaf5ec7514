"""The doors of a session's network: which listening socket serves what.

The launcher opens them (inside the jail, where there is one), the guard passes them on, the egress process serves each
by its kind. One list, so that the three agree.
"""

from __future__ import annotations

from enum import StrEnum


class Door(StrEnum):
    """What arrives at a listening socket of the egress process.

    PROXY: clients that ask a proxy (CONNECT, absolute-form HTTP, SOCKS5). CAPTURE: connections that were meant for
    somewhere else; the accepted socket's own name is where (a jail whose every address is local). FORWARDED:
    connections that the guard made in the session's stead; a PROXY protocol version 2 header says where to. DNS_UDP,
    DNS_TCP: the session's name server. MARK: nothing; it is held, and where it can be reached from outside of the
    jail a restore has taken it out (`agent.enforce.egress.left_behind`).
    """

    PROXY = "proxy"
    CAPTURE = "capture"
    FORWARDED = "forwarded"
    DNS_UDP = "dns-udp"
    DNS_TCP = "dns-tcp"
    MARK = "mark"


class Capture(StrEnum):
    """Which connections of a jail arrive at the CAPTURE doors, whatever address they were meant for. What does not
    arrive goes nowhere: the jail has no way out."""

    EVERY_PORT = "every-port"
    COMMON_PORTS = "common-ports"
    NONE = "none"
