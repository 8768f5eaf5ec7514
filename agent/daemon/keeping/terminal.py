"""The session's terminal: a fresh pty between the operator's terminal and the session.

The session never holds a descriptor of the operator's terminal, so what it pushes into its own (TIOCSTI, tty_ioctl(2))
never reaches the operator's shell. Only those of the three standard streams that are terminals are replaced; pipes and
files are passed on as they are. Where none is a terminal there is no pty and the session has no controlling terminal.
"""

from __future__ import annotations

import fcntl
import os
import select
import selectors
import termios
import tty
from contextlib import suppress

from agent.values import dataclass

CHUNK = 4096
BACKLOG = 1 << 16
_WINSIZE = b"\0" * 8


@dataclass(slots=True)
class Terminal:
    """The relay. `stdio`: the descriptors to give to the session as 0, 1 and 2."""

    stdio: tuple[int, int, int]
    _inner: int | None = None
    _slave: int | None = None
    _source: int | None = None
    _sink: int | None = None
    _saved: list[object] | None = None
    _to_session: bytearray | None = None
    _to_operator: bytearray | None = None
    _eof: bool = False

    @staticmethod
    def open() -> Terminal:
        """Make the pty where any standard stream is a terminal. Raises OSError where no pty is to be had."""
        terminals = [fd for fd in (0, 1, 2) if os.isatty(fd)]
        if not terminals:
            return Terminal((0, 1, 2))
        inner, slave = os.openpty()
        os.set_blocking(inner, False)
        with suppress(termios.error):
            termios.tcsetattr(slave, termios.TCSANOW, termios.tcgetattr(terminals[0]))
        stdio = tuple(slave if fd in terminals else fd for fd in (0, 1, 2))
        outward = [fd for fd in (1, 2, 0) if fd in terminals]
        terminal = Terminal((stdio[0], stdio[1], stdio[2]), inner, slave, terminals[0], outward[0])
        terminal._to_session, terminal._to_operator = bytearray(), bytearray()
        terminal.resize()
        return terminal

    @staticmethod
    def relay(inner: int) -> Terminal:
        """Between the operator's terminal and the outer side of a pty that somebody else has made, with the settings of
        the operator's. Takes over the descriptor."""
        terminals = [fd for fd in (0, 1, 2) if os.isatty(fd)]
        os.set_blocking(inner, False)
        with suppress(termios.error):
            termios.tcsetattr(inner, termios.TCSANOW, termios.tcgetattr(terminals[0]))
        outward = [fd for fd in (1, 2, 0) if fd in terminals]
        terminal = Terminal((0, 1, 2), inner, None, terminals[0], outward[0])
        terminal._to_session, terminal._to_operator = bytearray(), bytearray()
        terminal.resize()
        return terminal

    def raw(self) -> None:
        """Give the keys to the session: Ctrl-C and its kin are for its terminal to interpret."""
        if self._source is not None and self._saved is None:
            with suppress(termios.error):
                self._saved = termios.tcgetattr(self._source)
                tty.setraw(self._source, termios.TCSANOW)

    def restore(self) -> None:
        """Put the operator's terminal back as it was."""
        if self._source is not None and self._saved is not None:
            with suppress(termios.error):
                termios.tcsetattr(self._source, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]
            self._saved = None

    def hung_up(self) -> bool:
        """Whether the operator's terminal is gone: what SIGHUP means then is what it says, else it asks to reload."""
        if self._source is None:
            return False
        poll = select.poll()
        poll.register(self._source, 0)
        return any(mask & (select.POLLHUP | select.POLLERR) for _, mask in poll.poll(0))

    def resize(self) -> None:
        """Copy the window's size inward (the kernel then sends SIGWINCH to the session's foreground group)."""
        if self._inner is None or self._source is None:
            return
        with suppress(OSError):
            size = fcntl.ioctl(self._source, termios.TIOCGWINSZ, _WINSIZE)
            fcntl.ioctl(self._inner, termios.TIOCSWINSZ, size)

    def release_slave(self) -> None:
        """Close our copy of the session's side, so that its end is seen."""
        if self._slave is not None:
            os.close(self._slave)
            self._slave = None

    def wanted(self) -> dict[int, int]:
        """Descriptor -> selector events to wait for now."""
        events: dict[int, int] = {}
        if self._inner is None or self._to_session is None or self._to_operator is None:
            return events
        inner = selectors.EVENT_WRITE if self._to_session else 0
        if not self._to_operator and not self._eof:
            inner |= selectors.EVENT_READ
        if inner and not self._eof:
            events[self._inner] = inner
        if self._to_operator and self._sink is not None:
            events[self._sink] = selectors.EVENT_WRITE
        if self._source is not None and len(self._to_session) < BACKLOG:
            events[self._source] = events.get(self._source, 0) | selectors.EVENT_READ
        return events

    def handle(self, fd: int, mask: int) -> None:
        """Move bytes for one ready descriptor."""
        if self._to_session is None or self._to_operator is None:
            return
        if fd == self._inner:
            if mask & selectors.EVENT_READ:
                self._pull()
            if mask & selectors.EVENT_WRITE:
                with suppress(OSError):
                    del self._to_session[: os.write(fd, self._to_session[:CHUNK])]
            return
        if fd == self._sink and mask & selectors.EVENT_WRITE and self._to_operator:
            self._push()
        if fd == self._source and mask & selectors.EVENT_READ:
            try:
                data = os.read(fd, CHUNK)
            except OSError:
                data = b""
            if data:
                self._to_session += data
            else:
                self._source = None

    def drain(self) -> None:
        """After the session's end: show what its terminal still holds."""
        if self._inner is None or self._to_operator is None:
            return
        self.release_slave()
        for _ in range(10_000):
            self._push()
            if self._eof:
                break
            if not self._to_operator and not self._pull():
                break

    def _pull(self) -> bool:
        assert self._inner is not None and self._to_operator is not None  # noqa: S101
        try:
            data = os.read(self._inner, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""  # EIO: every holder of the session's side is gone
        if not data:
            self._eof = True
            return False
        self._to_operator += data
        return True

    def _push(self) -> None:
        if self._to_operator and self._sink is not None:
            try:
                del self._to_operator[: os.write(self._sink, self._to_operator[:CHUNK])]
            except OSError:
                self._to_operator.clear()
                self._sink = None
