"""The operator's end of `exec`: hands over the streams, carries the terminal, passes signals on, returns the status.

Rules kept here: the operator's terminal is never handed over, nor is any other: the agent makes a fresh one and this
process carries bytes between the two; the terminal is put back as it was, whatever happens.
"""

from __future__ import annotations

import array
import os
import selectors
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from agent.daemon.control.wire import Frames, Message, WireError, encode
from agent.daemon.keeping.terminal import Terminal
from agent.operate.control_client import Unreachable

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_READ = 1 << 16


class ExecRelay:
    """One command, over a connection to the agent."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._frames = Frames()
        self._terminal: Terminal | None = None
        self._terminals = [fd for fd in (0, 1, 2) if os.isatty(fd)]

    def run(self, question: Message) -> Message:
        """Ask, carry, and return the agent's answer. Raises Unreachable."""
        with _wakening() as wake:
            self._ask({**question, "verb": "exec", "terminals": self._terminals})
            self._sock.setblocking(False)
            try:
                return self._carry(wake)
            finally:
                if self._terminal is not None:
                    self._terminal.restore()

    def _ask(self, question: Message) -> None:
        with ExitStack() as stack:
            null = stack.enter_context(open(os.devnull, "r+b", buffering=0)) if self._terminals else None
            streams = [null.fileno() if null and fd in self._terminals else fd for fd in (0, 1, 2)]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))]
            try:
                data = encode(question)
                sent = self._sock.sendmsg([data], rights)
                self._sock.sendall(data[sent:])
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused before it was read: the answer is there
            except (OSError, WireError) as error:
                raise Unreachable(f"the agent could not be asked: {error}") from error

    def _carry(self, wake: socket.socket) -> Message:
        selector = selectors.DefaultSelector()
        while True:
            wanted = {wake.fileno(): selectors.EVENT_READ, self._sock.fileno(): selectors.EVENT_READ}
            if self._terminal is not None:
                wanted |= self._terminal.wanted()
            for fd, events in wanted.items():
                selector.register(fd, events)
            ready = [(key.fd, mask) for key, mask in selector.select()]
            for fd in wanted:
                selector.unregister(fd)
            for fd, mask in ready:
                if fd == wake.fileno():
                    self._signals(wake)
                elif fd == self._sock.fileno():
                    answer = self._receive()
                    if answer is not None:
                        if self._terminal is not None:
                            self._terminal.drain()
                        return answer
                elif self._terminal is not None:
                    self._terminal.handle(fd, mask)

    def _receive(self) -> Message | None:
        """The answer, None where it is still to come."""
        try:
            data, ancillary, _, _ = self._sock.recvmsg(_READ, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        except OSError as error:
            raise Unreachable(f"the agent's answer could not be read: {error}") from error
        if not data:
            raise Unreachable("the agent closed the connection without an answer")
        self._frames.feed(data)
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._take_terminal(array.array("i", payload[:4])[0])
        while (message := self._frames.take()) is not None:
            if "exit" in message:
                return message
        return None

    def _take_terminal(self, inner: int) -> None:
        if self._terminal is not None or not self._terminals:
            os.close(inner)
            return
        self._terminal = Terminal.relay(inner)
        self._tell({"type": "ready"})
        self._terminal.raw()

    def _signals(self, wake: socket.socket) -> None:
        with suppress(BlockingIOError):
            for number in wake.recv(256):
                if number == signal.SIGWINCH and self._terminal is not None:
                    self._terminal.resize()
                elif number in FORWARDED:
                    self._tell({"signal": signal.Signals(number).name})

    def _tell(self, message: Message) -> None:
        with suppress(OSError):  # the agent is gone, which is seen where it is read
            self._sock.sendall(encode(message))


@contextmanager
def _wakening() -> Iterator[socket.socket]:
    """A socket that becomes readable with each signal that is to be passed on, its numbers as bytes."""
    wake, notify = socket.socketpair()
    with wake, notify:
        wake.setblocking(False)
        notify.setblocking(False)
        before = {number: signal.getsignal(number) for number in (*FORWARDED, signal.SIGWINCH)}
        signal.set_wakeup_fd(notify.fileno(), warn_on_full_buffer=False)
        for number in before:
            signal.signal(number, lambda *_: None)
        try:
            yield wake
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
