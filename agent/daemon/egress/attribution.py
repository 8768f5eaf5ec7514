"""Whose connection is it: from the two ends of an accepted connection to the session's process behind it.

The egress process says which connections it accepted and can't look further: /proc/PID/fd of the session is not for its
eyes. The guard looks at once, because short-lived clients are soon gone, and on a thread of its own, because nothing
may wait for it: an event that is ready before the answer waits for it at most `PATIENCE`, and is recorded without it
then. What is found is for the record; it never influences a decision.

Rules kept here: everything is bounded (questions that wait, answers that are kept, descriptors that are looked at); a
process that vanishes or can't be read leaves its connection without a name, and no error.

Source: proc_pid_fd(5) (links of the form ``socket:[inode]``, readable for the same file-system uid).
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Final

from agent.daemon.base import processes
from agent.daemon.egress.socket_tables import Endpoint, SocketTables
from agent.linux.process import FilesystemIdentity
from agent.record.event import Json
from agent.values import dataclass

log = logging.getLogger(__name__)

type Found = Mapping[str, Json]
type Key = tuple[Endpoint, bool]
"""The session's end, and whether it is a datagram socket's."""

PATIENCE: Final = 0.1
"""Seconds that an event waits for an answer that is being looked for."""
MAX_WAITING: Final = 4096
MAX_KEPT: Final = 8192
MAX_DESCRIPTORS: Final = 50_000
_RECENT: Final = 8
_NOBODY: Final[Found] = {}


@dataclass(frozen=True, slots=True)
class Connection:
    """The session's end and the other one, addresses as `plain_address` gives them; `number` is the accepter's.
    `udp`: a datagram, whose socket need not be connected to the other end, nor bound to one address."""

    source: Endpoint
    destination: Endpoint
    number: int = 0
    udp: bool = False

    @property
    def key(self) -> Key:
        return self.source, self.udp


class Attribution:
    """Must be made inside the running loop. `anchor` returns a process id in the session's network namespace (0 before
    there is one). `uid`, `gid`: the session's, as which its processes are looked at; None where it has the agent's.
    `names`: the accounts' names by uid. `on_look` is called with the highest number that was looked at.
    """

    def __init__(self, anchor: Callable[[], int], uid: int | None, gid: int | None, names: Mapping[int, str]) -> None:
        self.on_look: Callable[[int], None] | None = None
        self._anchor = anchor
        self._uid = os.geteuid() if uid is None else uid
        self._eyes = FilesystemIdentity(uid, gid)
        self._names = dict(names)
        self._loop = asyncio.get_running_loop()
        self._kept: OrderedDict[Key, Found] = OrderedDict()
        self._waiting: dict[Key, list[Callable[[Found], None]]] = {}
        self._questions: deque[Connection] = deque()
        self._ask = threading.Semaphore(0)
        self._recent: deque[int] = deque(maxlen=_RECENT)
        self._stopping = False
        self._sockets = SocketTables()
        self._thread = threading.Thread(target=self._run, name="attribution", daemon=True)
        self._thread.start()

    def opened(self, connection: Connection) -> None:
        """Look who that is, starting now."""
        self._kept.pop(connection.key, None)  # the port's last user
        if max(len(self._waiting), len(self._questions)) >= MAX_WAITING:
            return
        self._waiting.setdefault(connection.key, [])  # a resolver asks twice at once from one socket
        self._questions.append(connection)
        self._ask.release()

    def tell(self, source: Endpoint, then: Callable[[Found], None], *, udp: bool = False) -> None:
        """Call `then` with what is known about the connection from `source`: now, or when it has been found."""
        key = source, udp
        waiting = self._waiting.get(key)
        if waiting is None:
            then(self._kept.get(key, _NOBODY))
            return
        if not waiting:
            self._loop.call_later(PATIENCE, self._answer, key, _NOBODY)
        waiting.append(then)

    def stop(self) -> None:
        """End the thread; whoever waits is answered with nothing."""
        self._stopping = True
        self._ask.release()
        for key in list(self._waiting):
            self._answer(key, _NOBODY)

    def _answer(self, key: Key, found: Found) -> None:
        waiting = self._waiting.pop(key, None)
        if found:
            self._kept[key] = found
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        for then in waiting or ():
            then(found)

    # --- the thread

    def _run(self) -> None:
        try:
            with self._eyes:
                pass
        except OSError:  # gVisor has no setfsuid(2), and lets root look with its own rights
            self._eyes = FilesystemIdentity(None, None)
        while True:
            self._ask.acquire()
            if self._stopping:
                return
            asked = []
            with suppress(IndexError):
                while True:
                    asked.append(self._questions.popleft())
            if not asked:
                continue  # an earlier round has taken it along
            try:
                with self._eyes:
                    found = self._look(asked)
            except Exception:  # a name is missing in the record, nothing else depends on it
                log.exception("connections could not be attributed")
                found = {}
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._answer_all, asked, found)

    def _answer_all(self, asked: list[Connection], found: dict[Key, Found]) -> None:
        for connection in asked:
            self._answer(connection.key, found.get(connection.key, _NOBODY))
        if self.on_look is not None:
            self.on_look(max(connection.number for connection in asked))

    def _look(self, asked: list[Connection]) -> dict[Key, Found]:
        anchor = self._anchor()
        if not anchor:
            return {}
        inodes = self._inodes_of(asked, anchor)
        holders = self._holders(set(inodes.values()))
        return {
            key: process
            for key, inode in inodes.items()
            if (pid := holders.get(inode)) is not None and (process := self._process(pid))
        }

    def _inodes_of(self, asked: list[Connection], anchor: int) -> dict[Key, int]:
        streams = {connection.source: connection.destination for connection in asked if not connection.udp}
        datagrams = {connection.source for connection in asked if connection.udp}
        found = {(source, False): inode for source, inode in self._sockets.streams(streams, anchor).items()}
        return found | {(source, True): inode for source, inode in self._sockets.datagrams(datagrams, anchor).items()}

    def _holders(self, wanted: set[int]) -> dict[int, int]:
        """Socket inode to a process that has it open, the processes that connected last first."""
        holders: dict[int, int] = {}
        left = MAX_DESCRIPTORS
        for pid in self._candidates() if wanted else ():
            for inode in _sockets(pid):
                left -= 1
                if inode in wanted and inode not in holders:
                    holders[inode] = pid
                    if pid not in self._recent:
                        self._recent.append(pid)
            if wanted <= holders.keys() or left <= 0:
                break
        return holders

    def _candidates(self) -> Iterable[int]:
        """Each once; all of /proc is gone through only where the recent ones don't do."""
        recent = tuple(reversed(self._recent))
        yield from recent
        yield from (pid for pid in self._session_processes() if pid not in recent)

    def _session_processes(self) -> Iterable[int]:
        for entry in os.listdir("/proc"):  # noqa: PTH208  (names are all that is needed)
            if entry.isdigit():
                with suppress(OSError):
                    if os.stat(f"/proc/{entry}").st_uid == self._uid:  # noqa: PTH116
                        yield int(entry)

    def _process(self, pid: int) -> Found:
        """What the record says about a process; empty where it is gone."""
        status, argv = processes.standing(pid), processes.words(pid)
        exe = processes.program(pid)
        if status is None or exe is None:
            return _NOBODY
        found: dict[str, Json] = {"pid": pid, "ppid": status.parent, "uid": status.uid, "exe": exe}
        if status.uid in self._names:
            found["user"] = self._names[status.uid]
        found["argv"] = [*processes.shown(argv)]
        return found


def plain_address(text: str) -> str:
    """A literal as the tables and the accepted sockets of both families are compared: IPv4 out of its mapped form."""
    address = ip_address(text)
    return str(getattr(address, "ipv4_mapped", None) or address)


def _sockets(pid: int) -> Iterable[int]:
    """The inodes of the sockets that a process has open; none where it is gone or closed to us."""
    with suppress(OSError):
        for entry in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
            with suppress(OSError):
                link = os.readlink(f"/proc/{pid}/fd/{entry}")  # noqa: PTH115
                if link.startswith("socket:["):
                    yield int(link[8:-1])
