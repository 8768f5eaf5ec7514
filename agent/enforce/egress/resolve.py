"""Names to addresses: once, off the loop, and kept for whoever asks: the name server's answers and the dials alike.

Rules kept here: the answer is every address, canonical, in the resolver's order; nothing is left out, so that whoever
judges sees all; one lookup serves all who ask for the name at the same time and for `TTL` seconds after; a lookup that
fails or takes too long is an error, never an empty answer, and is remembered only for `NEGATIVE` seconds. Only names
that the policy lets through get here.

What a session may cause upstream is bounded: `NAMES_BELOW` different names a minute and `UNDERWAY_BELOW` lookups at a
time below one wildcard (names that the session makes up can carry bytes to whoever serves the domain, and slow ones
could hold every thread), `UNDERWAY` in all. A lookup that nobody waits for any more and no thread has begun is dropped.

An address that was answered to the session stays good for its connections for `GRACE` seconds after the answer's time
has run out, so that a connection made with the answer's last second finds its name.

`lookup` is the C library's resolver (files, then DNS), which does not tell how long an answer is good: `TTL` stands in.
The search list of resolv.conf must be off (`LOCALDOMAIN=`, resolv.conf(5); `agent.enforce.egress.main` sets it): the
decided name is looked up and no other.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from enum import StrEnum
from typing import Final

from agent.policy.addresses import address_class, canonical_address
from agent.policy.decision import Decision
from agent.values import dataclass

TTL: Final = 30.0
NEGATIVE: Final = 2.0
GRACE: Final = 15.0
SECONDS: Final = 10.0
MAX_NAMES: Final = 1024
MAX_ADDRESSES: Final = 128
THREADS: Final = 16
UNDERWAY: Final = 256
UNDERWAY_BELOW: Final = 8
NAMES_BELOW: Final = 60
_MINUTE: Final = 60.0

type Lookup = Callable[[str], Sequence[str]]


class Failure(StrEnum):
    """Why a name has no addresses."""

    NO_NAME = "no such name"
    NO_ADDRESS = "the name has no address"
    TIMED_OUT = "no answer in time"
    BOUND = "too many names"
    FAILED = "the lookup failed"


class ResolveError(Exception):
    """The name has no usable answer; `failure` says in which way."""

    def __init__(self, message: str, failure: Failure = Failure.FAILED) -> None:
        super().__init__(message)
        self.failure = failure

    @property
    def timed_out(self) -> bool:
        return self.failure is Failure.TIMED_OUT


@dataclass(frozen=True, slots=True)
class Resolution:
    """All addresses of a host. `own`: those that look public and are this machine's."""

    addresses: tuple[str, ...]
    own: tuple[str, ...]


@dataclass(slots=True)
class _Pin:
    """An answer and the loop time until which it is fresh. `told`: the session has it, and it is good for longer."""

    resolution: Resolution
    fresh: float
    told: bool = False

    @property
    def good(self) -> float:
        return self.fresh + GRACE if self.told else self.fresh


@dataclass(frozen=True, slots=True)
class _Failed:
    """What a lookup that failed said, without the exception and all that hangs on it."""

    until: float
    message: str
    failure: Failure


@dataclass(slots=True)
class _Job:
    """A lookup that has been asked for, and how many wait for it."""

    thread: Future[Resolution]
    result: asyncio.Future[Resolution]
    below: str | None
    waiting: int = 0


class Resolver:
    """Must be made inside the running loop. `seconds` bounds one lookup, waiting for a thread included."""

    def __init__(
        self, lookup: Lookup | None = None, *, ttl: float = TTL, seconds: float = SECONDS, negative: float = NEGATIVE
    ) -> None:
        self._lookup = lookup or system_lookup
        self._ttl = ttl
        self._negative = negative
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="resolve")
        self._known: dict[str, _Pin] = {}
        self._failed: dict[str, _Failed] = {}
        self._jobs: dict[str, _Job] = {}
        self._below: dict[str, dict[str, float]] = {}

    async def resolve(self, host: str, below: str | None = None) -> Resolution:
        """The addresses of a normalised host, to be judged and dialled; an address literal is its own answer.

        `below`: the wildcard that allowed the name, where nothing else did. Raises ResolveError.
        """
        if canonical_address(host) is not None:
            return self._answer(host)
        pin = self._known.get(host)
        if pin is not None and self._loop.time() < pin.good:
            return pin.resolution
        return (await self._fresh(host, below)).resolution

    async def answer(self, host: str, below: str | None = None) -> tuple[Resolution, int]:
        """The same for a name server: with the whole seconds that the answer is good. Raises ResolveError.

        It is not on record as answered before `pin` says so.
        """
        pin = await self._fresh(host, below)
        return pin.resolution, max(0, int(pin.fresh - self._loop.time()))

    def pin(self, host: str, resolution: Resolution) -> None:
        """The session is being told this answer: it stays good for its connections a little longer."""
        pin = self._known.get(host)
        if pin is not None and pin.resolution is resolution:
            pin.told = True

    def names_of(self, address: str) -> tuple[str, ...]:
        """The names that the session was told have this address (canonical text), and that are still good for it."""
        now = self._loop.time()
        return tuple(
            name
            for name, pin in self._known.items()
            if pin.told and now < pin.good and address in pin.resolution.addresses
        )

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _fresh(self, host: str, below: str | None) -> _Pin:
        now = self._loop.time()
        pin = self._known.get(host)
        if pin is not None and now < pin.fresh:
            return pin
        failed = self._failed.get(host)
        if failed is not None and now < failed.until:
            raise ResolveError(failed.message, failed.failure)
        job = self._jobs.get(host) or self._ask(host, below)
        job.waiting += 1
        try:
            async with asyncio.timeout(self._seconds):
                resolution = await asyncio.shield(job.result)
        except TimeoutError as error:
            raise ResolveError(f"looking up {host} took too long", Failure.TIMED_OUT) from error
        finally:
            job.waiting -= 1
            if not job.waiting and job.thread.cancel():  # one that a thread has begun keeps its answer for the next
                self._forget(host, job)
        pin = self._known.get(host)
        return pin if pin is not None and pin.resolution is resolution else _Pin(resolution, now)

    def _ask(self, host: str, below: str | None) -> _Job:
        """Raises ResolveError where it would be one too many."""
        if len(self._jobs) >= UNDERWAY:
            raise ResolveError(f"{host} is not looked up: too many lookups are under way", Failure.BOUND)
        if below is not None:
            self._check_bounds(host, below)
        thread = self._threads.submit(self._answer, host)
        job = self._jobs[host] = _Job(thread, asyncio.wrap_future(thread), below)
        job.result.add_done_callback(lambda future: self._answered(host, job))
        return job

    def _forget(self, host: str, job: _Job) -> None:
        if self._jobs.get(host) is job:
            del self._jobs[host]

    def _check_bounds(self, host: str, below: str) -> None:
        if sum(job.below == below for job in self._jobs.values()) >= UNDERWAY_BELOW:
            raise ResolveError(f"{host} is not looked up: too many names below {below} are under way", Failure.BOUND)
        now = self._loop.time()
        asked = self._below.setdefault(below, {})
        while asked and asked[first := next(iter(asked))] <= now - _MINUTE:
            del asked[first]
        if host not in asked:
            if len(asked) >= NAMES_BELOW:
                reason = f"{host} is not looked up: {NAMES_BELOW} names below {below} were, within a minute"
                raise ResolveError(reason, Failure.BOUND)
            asked[host] = now

    def _answer(self, host: str) -> Resolution:
        """In a thread, for a name."""
        try:
            found = [host] if canonical_address(host) is not None else self._lookup(host)
        except OSError as error:
            reason = f"{host} cannot be resolved: {error.strerror or error}"
            raise ResolveError(reason, _FAILURES.get(error.errno or 0, Failure.FAILED)) from error
        addresses = tuple(dict.fromkeys(canonical_address(text.partition("%")[0]) or "" for text in found))
        if not addresses or "" in addresses:
            raise ResolveError(f"{host} cannot be resolved: the answer holds no usable address")
        if len(addresses) > MAX_ADDRESSES:
            raise ResolveError(f"{host} cannot be resolved: the answer holds more than {MAX_ADDRESSES} addresses")
        own = tuple(address for address in addresses if address_class(address) is None and is_own(address))
        return Resolution(addresses, own)

    def _answered(self, host: str, job: _Job) -> None:
        self._forget(host, job)
        if job.result.cancelled():
            return
        now = self._loop.time()
        error = job.result.exception()
        if error is None:
            _remember(self._known, host, _Pin(job.result.result(), now + self._ttl))
        elif isinstance(error, ResolveError):
            _remember(self._failed, host, _Failed(now + self._negative, str(error), error.failure))


def wildcard_of(decision: Decision) -> str | None:
    """The wildcard that allowed a name, None where some layer names it in full: a session makes up no such names."""
    patterns = [rule.pattern for rule in decision.grants]
    return patterns[0] if patterns and all(pattern.startswith("*.") for pattern in patterns) else None


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


# getaddrinfo(3): the name exists nowhere, or exists without an address
_FAILURES: Final = {int(socket.EAI_NONAME): Failure.NO_NAME, int(socket.EAI_NODATA): Failure.NO_ADDRESS}


def _remember[T](table: dict[str, T], host: str, entry: T) -> None:
    """The newest last; the oldest makes room."""
    table.pop(host, None)
    if len(table) >= MAX_NAMES:
        del table[next(iter(table))]
    table[host] = entry
