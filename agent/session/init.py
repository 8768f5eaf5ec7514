"""The session's first process: it starts the session's commands, takes whatever ends, and ends all with the agent.

It is the launcher, once the confinement is complete (agent.session.launch), so it is inside of it: every command is a
fork of it and shares one network, one set of mounts, one Landlock domain, one filter and its listener. It keeps the
agent's uid where the session has another. Rules kept here:

- It runs nothing of the session's, and reads nothing that the session can write: only its two channels.
- It outlives the guard: what ended meanwhile is told to the one that the keeper hands over ("adopt").
- The end of the keeper's channel is the end of the session: nobody is left to carry it.
- Where it is the first process of a process namespace its own end is the end of all; elsewhere it walks and kills.
- However many processes are orphaned, the channels have their turn.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from agent.channel import Channel, ChannelClosed, Message
from agent.exits import Exit
from agent.session import jail
from agent.session.command import Account, Start, report_fault
from agent.session.doors import Capture, Door
from agent.session.offspring import adopt_orphans, end_all
from agent.session.plan import Command, Proofs

REAPED_AT_ONCE = 256
REMEMBERED = 64
"""Commands that have ended, for the next guard."""
_LONGEST_PAUSE_MS = 1000


class Init:
    """`guard` and `keeper`: the two channels. `alone`: whether this is the first process of a process namespace.
    `first`: what the attempts before the session are made as; `proofs`: those attempts. `doors`, `capture`: those of
    the launch, where they may have to be opened again."""

    def __init__(
        self,
        guard: Channel,
        keeper: Channel,
        account: Account,
        *,
        alone: bool,
        first: Command,
        proofs: Proofs,
        doors: Sequence[Door] = (),
        capture: Capture = Capture.NONE,
    ) -> None:
        self._guard: Channel | None = guard
        self._keeper = keeper
        self._account = account
        self._alone = alone
        self._first = first
        self._proofs = proofs
        self._doors = doors
        self._capture = capture
        self._numbers: dict[int, int] = {}
        self._outside: dict[int, int] = {}
        self._ended: deque[Message] = deque(maxlen=REMEMBERED)
        self._wake, self._notify = socket.socketpair()
        self._strays: int | None = None

    def serve(self) -> NoReturn:
        """Until the session's end, which is this process's."""
        if not adopt_orphans() and not self._alone:
            self._strays = self._account.uid
        self._watch_children()
        left = False
        while True:
            for fd in self._ready(0 if left else _LONGEST_PAUSE_MS):
                if fd == self._wake.fileno():
                    with suppress(BlockingIOError):
                        self._wake.recv(4096)
                elif fd == self._keeper.fileno():
                    self._from_keeper()
                elif self._guard is not None and fd == self._guard.fileno():
                    self._from_guard(self._guard)
            left = self._reap()

    def _watch_children(self) -> None:
        for end in (self._wake, self._notify):
            end.setblocking(False)
        signal.set_wakeup_fd(self._notify.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _ready(self, patience: int) -> list[int]:
        poller = select.poll()
        for fd in (
            self._wake.fileno(),
            self._keeper.fileno(),
            *([] if self._guard is None else [self._guard.fileno()]),
        ):
            poller.register(fd, select.POLLIN)
        return [fd for fd, _ in poller.poll(patience)]

    # --- the agent

    def _from_keeper(self) -> None:
        try:
            for message, fds in self._keeper.feed():
                if message["type"] != "adopt" or len(fds) != 1:
                    self.end()
                self._adopt(Channel(socket.socket(fileno=fds[0])))
        except (ChannelClosed, KeyError):
            self.end()

    def _adopt(self, guard: Channel) -> None:
        """Answer to this guard from here on. It is told what runs, with the process ids that the last guard knew, and
        what has ended of late: the last guard may have died before it read it. What that one had said is taken
        first: it may be which process a command is."""
        while self._guard is not None and self._guard.fileno() in self._ready(0):
            self._from_guard(self._guard)
        if self._guard is not None:
            self._guard.close()
        self._guard = guard
        running = [{"id": number, "pid": self._outside.get(number, 0)} for number in self._numbers.values()]
        self._tell({"type": "adopted", "running": running, "ended": list(self._ended)})

    def _from_guard(self, guard: Channel) -> None:
        try:
            for message, fds in guard.feed():
                self._take(message, fds)
        except (ChannelClosed, KeyError, TypeError, ValueError):
            guard.close()
            self._guard = None

    def _take(self, message: Message, fds: list[int]) -> None:
        match message["type"]:
            case "run" | "prove" if len(fds) == 4:
                self._start(message, fds)
            case "listen":
                self._listen(int(message["port"]))
            case "born":
                self._outside[int(message["id"])] = int(message["pid"])
            case unknown:
                for fd in fds:
                    os.close(fd)
                raise ChannelClosed(f"unknown message {unknown!r}")

    def _listen(self, port: int) -> None:
        """Open the doors in this network: it may be another one than that of the launch. Where not all are to be had
        (the low ports and the addresses of others take rights), the proxy's and a mark."""
        error = missing = ""
        opened: jail.Opened = []
        try:
            opened = self._opened([*self._doors], self._capture, port)
        except OSError as first:
            missing = f"{type(first).__name__}: {first}"
            try:
                opened = self._opened([Door.PROXY, Door.MARK], Capture.NONE, port)
            except OSError as second:
                error = f"{type(second).__name__}: {second}"
        doors = [str(door) for door, _ in opened]
        told = {"type": "listeners", "doors": doors, "error": error, "missing": missing}
        self._tell(told, [listener.fileno() for _, listener in opened])
        jail.close(opened)

    @staticmethod
    def _opened(doors: list[Door], capture: Capture, port: int) -> jail.Opened:
        """IPv4's, and of IPv6 the name server's for streams: the rest leads nowhere where this is asked for, and nobody
        in the session has datagrams of IPv6 there. Raises OSError."""
        opened = jail.open_doors(doors or [Door.PROXY, Door.MARK], capture, port, [socket.AF_INET])
        if Door.DNS_TCP in doors and socket.AF_INET6 in jail.families():
            try:
                opened += jail.open_doors([Door.DNS_TCP], Capture.NONE, port, [socket.AF_INET6])
            except OSError:
                jail.close(opened)
                raise
        return opened

    def _tell(self, message: Message, fds: Sequence[int] = ()) -> None:
        if self._guard is not None:
            with suppress(ChannelClosed):  # its end is seen where it is read
                self._guard.send(message, fds)

    # --- the session

    def _start(self, message: Message, fds: list[int]) -> None:
        birth = socket.socket(fileno=fds[3])
        proofs = self._proofs if message["type"] == "prove" else None
        command = self._first
        if proofs is None:
            command = Command(tuple(message["argv"]), dict(message["env"]), str(message["workdir"]))
        me = os.getpid()
        try:
            child = os.fork()
            if child == 0:
                try:
                    Start(command, (fds[0], fds[1], fds[2]), birth, self._account, me).run(proofs)
                finally:
                    os._exit(int(Exit.UNPROTECTED))
            self._numbers[child] = int(message["id"])
        except OSError as error:
            report_fault(birth, "fork", error)
        finally:
            birth.close()
            for fd in fds[:3]:
                os.close(fd)

    def _reap(self) -> bool:
        """Take what has ended; True where there may be more."""
        for _ in range(REAPED_AT_ONCE):
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return False
            number = self._numbers.pop(pid, None)
            if number is not None:
                self._outside.pop(number, None)
                self._ended.append({"id": number, "status": status})
                self._tell({"type": "ended", "id": number, "status": status})
        return True

    def end(self) -> NoReturn:
        """Kill everything that is left of the session, then this process."""
        if not self._alone:
            end_all(os.getpid(), (), self._reap, user=self._strays, account=self._account.uid)
        os._exit(0)
