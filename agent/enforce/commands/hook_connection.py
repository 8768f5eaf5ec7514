"""The hook's socket in the guard's loop: connections accepted, questions taken in, answers sent.

Rules kept here: nothing blocks the loop; a question has a time in which it must arrive and an answer one in which it
must leave; no more than MAX_CLIENTS at once, others are closed at once (which denies them). Without asyncio's streams,
which cost as much as the decision: a call is answered in the turn of the loop in which its last byte arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from agent.enforce.commands.hook_wire import Intake, WireError

log = logging.getLogger(__name__)

MAX_CLIENTS = 64
_BACKLOG = 128
_PIECE = 64 << 10
_PIECES = 8
"""Pieces of one question that are taken in one turn of the loop."""
_ACCEPT_PAUSE = 0.2
"""Seconds without accepting, where the process has no descriptors left."""

type Answer = Callable[[Intake, str | None, socket.socket], bytes | Awaitable[bytes]]
"""(what arrived, why it is no question or None, the caller) -> the answer, empty for none, which denies too."""


class Listener:
    """Listens on `path` from `start` to `stop`. `timeout`: seconds for a question to arrive, and for its answer."""

    def __init__(self, path: str, answer: Answer, timeout: float) -> None:
        self._path = path
        self._answer = answer
        self._timeout = timeout
        self._listening: socket.socket | None = None
        self._connections: set[_Connection] = set()

    def start(self) -> None:
        """Bind and listen, open to every user of the machine: SO_PEERCRED says who asks. Raises OSError."""
        _remove(self._path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.setblocking(False)
            listening.bind(self._path)
            Path(self._path).chmod(0o666)
            listening.listen(_BACKLOG)
        except OSError:
            listening.close()
            raise
        self._listening = listening
        self._watch()

    def stop(self) -> None:
        """Stop listening; calls in hand lose their connection, which denies them."""
        if self._listening is None:
            return
        asyncio.get_running_loop().remove_reader(self._listening)
        self._listening.close()
        self._listening = None
        for connection in tuple(self._connections):
            connection.close()
        _remove(self._path)

    def _watch(self) -> None:
        if self._listening is not None:
            asyncio.get_running_loop().add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        if self._listening is None:
            return
        for _ in range(_BACKLOG):
            try:
                accepted, _address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("the hook's socket accepts nothing for a moment: %s", error)
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._listening)
                loop.call_later(_ACCEPT_PAUSE, self._watch)
                return
            if len(self._connections) >= MAX_CLIENTS:
                accepted.close()
                continue
            connection = _Connection(accepted, self._answer, self._timeout, self._connections.discard)
            self._connections.add(connection)
            connection.begin()


class _Connection:
    """One question and its answer."""

    def __init__(
        self, peer: socket.socket, answer: Answer, timeout: float, ended: Callable[[_Connection], None]
    ) -> None:
        peer.setblocking(False)
        self._peer = peer
        self._answer = answer
        self._timeout = timeout
        self._ended = ended
        self._intake = Intake()
        self._loop = asyncio.get_running_loop()
        self._late = self._loop.call_later(timeout, self._finish, "it did not arrive in time")
        self._reading = True
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._loop.add_reader(self._peer, self._readable)
        self._readable()

    def close(self) -> None:
        self._stop_reading()
        if self._task is not None:
            self._task.cancel()
        self._peer.close()
        self._ended(self)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._late.cancel()
            self._loop.remove_reader(self._peer)

    def _readable(self) -> None:
        try:
            for _ in range(_PIECES):
                if not self._reading:
                    return
                piece = self._peer.recv(_PIECE)
                if not piece:
                    self._finish(None)
                    return
                self._intake.feed(piece)
        except (BlockingIOError, InterruptedError):
            return
        except WireError as error:
            self._finish(str(error))
            return
        except OSError:  # gone
            self.close()
            return
        self._loop.call_soon(self._readable)  # more than its share has arrived; gVisor may not tell again

    def _finish(self, fault: str | None) -> None:
        """All has arrived, or no more will be taken: the answer goes out."""
        self._stop_reading()
        try:
            given = self._answer(self._intake, fault, self._peer)
        except Exception:
            log.exception("a hook call could not even be refused; it gets no answer, which denies it")
            given = b""
        if isinstance(given, bytes):
            self._send(given)
        else:
            self._task = self._loop.create_task(self._wait(given))

    def _send(self, answer: bytes) -> None:
        try:
            sent = self._peer.send(answer) if answer else 0
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:  # gone
            sent = len(answer)
        if sent == len(answer):
            self.close()
        else:
            self._task = self._loop.create_task(self._send_rest(answer[sent:]))

    async def _wait(self, given: Awaitable[bytes]) -> None:
        answer = b""
        try:
            answer = await given
        except Exception:
            log.exception("a hook call could not even be refused; it gets no answer, which denies it")
        self._task = None
        self._send(answer)

    async def _send_rest(self, answer: bytes) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(self._timeout):
                await self._loop.sock_sendall(self._peer, answer)
        self._task = None
        self.close()


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        Path(path).unlink()
