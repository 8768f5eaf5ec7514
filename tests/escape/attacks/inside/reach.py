"""What the acts of `network.py` share: reaching the process outside, and hearing from it."""

import socket
import sys

from kit import IN_GVISOR, WORLD, Absent, Resisted, secret_in

LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def not_in_gvisor(what):
    if IN_GVISOR:
        raise Absent(f"gVisor has no {what}")


def port():
    """The port of the process outside that belongs to the act that asks."""
    return WORLD["tcp"][sys._getframe(1).f_code.co_name]


def answer(link):
    """What the other end says: the secret, if it is the process outside."""
    with link:
        link.settimeout(3)
        try:
            said = link.recv(200)
        except TimeoutError:
            raise Resisted("connected, and heard nothing") from None
        if not said:
            raise Resisted("connected, and closed at once")
        return secret_in(said)


def dial(address, family=socket.AF_INET, kind=socket.SOCK_STREAM, protocol=0):
    link = socket.socket(family, kind, protocol)
    link.settimeout(3)
    link.connect(address)
    return answer(link)
