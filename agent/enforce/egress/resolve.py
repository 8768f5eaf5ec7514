"""Names to addresses: once, off the loop, and kept for the connection that asked.

Rules kept here: the answer is every address, canonical, in the resolver's order; nothing is left out, so that whoever
judges sees all; one lookup serves all who ask for the name at the same time and for `TTL` seconds after; a lookup that
fails or takes too long is an error, never an empty answer. Only names that the policy lets through get here.

`lookup` is the C library's resolver (files, then DNS). The search list of resolv.conf must be off (`LOCALDOMAIN=`,
resolv.conf(5); `agent.enforce.egress.main` sets it): the decided name is looked up and no other.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from agent.policy.addresses import address_class, canonical_address

TTL: Final = 30.0
SECONDS: Final = 10.0
MAX_NAMES: Final = 1024
THREADS: Final = 8

type Lookup = Callable[[str], Sequence[str]]


class ResolveError(Exception):
    """The name has no usable answer. `timed_out` tells a slow resolver from a negative answer."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


@dataclass(frozen=True, slots=True)
class Resolution:
    """All addresses of a host. `own`: those that look public and are this machine's."""

    addresses: tuple[str, ...]
    own: tuple[str, ...]


class Resolver:
    """Must be made inside the running loop. `seconds` bounds one lookup, waiting for a thread included."""

    def __init__(self, lookup: Lookup | None = None, *, ttl: float = TTL, seconds: float = SECONDS) -> None:
        self._lookup = lookup or system_lookup
        self._ttl = ttl
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="resolve")
        self._known: dict[str, tuple[float, Resolution]] = {}
        self._asked: dict[str, asyncio.Future[Resolution]] = {}

    async def resolve(self, host: str) -> Resolution:
        """The addresses of a normalised host; an address literal is its own answer. Raises ResolveError."""
        if canonical_address(host) is not None:
            return self._answer(host)
        known = self._known.get(host)
        if known is not None and self._loop.time() < known[0]:
            return known[1]
        asked = self._asked.get(host)
        if asked is None:
            asked = self._asked[host] = self._loop.run_in_executor(self._threads, self._answer, host)
            asked.add_done_callback(lambda future: self._answered(host, future))
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(asked)
        except TimeoutError as error:
            raise ResolveError(f"looking up {host} took too long", timed_out=True) from error

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _answer(self, host: str) -> Resolution:
        """In a thread, for a name."""
        try:
            found = [host] if canonical_address(host) is not None else self._lookup(host)
        except OSError as error:
            raise ResolveError(f"{host} cannot be resolved: {error.strerror or error}") from error
        addresses = tuple(dict.fromkeys(canonical_address(text.partition("%")[0]) or "" for text in found))
        if not addresses or "" in addresses:
            raise ResolveError(f"{host} cannot be resolved: the answer holds no usable address")
        own = tuple(address for address in addresses if address_class(address) is None and is_own(address))
        return Resolution(addresses, own)

    def _answered(self, host: str, future: asyncio.Future[Resolution]) -> None:
        del self._asked[host]
        if future.cancelled() or future.exception() is not None:
            return
        if len(self._known) >= MAX_NAMES:
            del self._known[next(iter(self._known))]
        self._known.pop(host, None)
        self._known[host] = (self._loop.time() + self._ttl, future.result())


def system_lookup(host: str) -> list[str]:
    """getaddrinfo(3). Raises OSError. (Bytes: Python's own IDNA codec must not touch the name again.)"""
    found = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [str(entry[4][0]) for entry in found]


def is_own(address: str) -> bool:
    """True where the address belongs to this machine: then the kernel picks it as the source as well.

    connect(2) on a UDP socket sends nothing.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return canonical_address(str(probe.getsockname()[0])) == address
    except OSError:
        return False
