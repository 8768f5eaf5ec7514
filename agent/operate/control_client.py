"""The operator's end of the control socket: finds a running agent, asks it one thing, returns what it said.

Rules kept here: only a socket of root's or of the caller's own account is spoken to, so that nobody else can pose as
the agent; several sessions and no choice is an error that names them; where none answers yet, one that starts is
waited for, so that a session's first moments are not out of reach; who must not miss one that is just being started,
and has left no trace yet, waits for a trace too; nothing is waited for without end.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from agent.daemon.base.names import control_link, control_socket
from agent.daemon.base.spec import RUN_ROOT
from agent.daemon.control.wire import Frames, Message, WireError, encode
from agent.daemon.keeping.leavings import lives
from agent.exits import Exit

ANSWER_SECONDS = 120.0
STARTING_SECONDS = 30.0
"""For an agent that is starting, or whose guard is being replaced: as long as a launch may take."""
APPEARING_SECONDS = 5.0
"""For a session that somebody has just begun to start: many times what it takes until it can be seen."""
_PAUSE = 0.02


class Unreachable(Exception):
    """No agent answers; the text says what was tried. `exit`: the status to end with."""

    def __init__(self, text: str, status: Exit = Exit.UNREACHABLE) -> None:
        super().__init__(text)
        self.exit = status


def run_root(flag: str | None) -> Path:
    """Where sessions keep their sockets: the flag, PARHELIA_RUN_DIR, or the default."""
    return Path(flag or os.environ.get("PARHELIA_RUN_DIR") or RUN_ROOT).absolute()


def reach(root: Path, session: str | None, patience: float = STARTING_SECONDS, appearing: float = 0.0) -> socket.socket:
    """A connection to the agent of the session, or of the only one that runs below `root`. `patience`: seconds for one
    that is there and does not answer yet; `appearing`: for one to be there. Raises Unreachable."""
    began = time.monotonic()
    while True:
        try:
            return _reach(root, session)
        except Unreachable as error:
            waited = time.monotonic() - began
            if error.exit is not Exit.UNREACHABLE or waited > patience:
                raise
            if waited > appearing and not _begins(root, session):
                raise
        time.sleep(_PAUSE)


def _begins(root: Path, session: str | None) -> bool:
    """Is there a run whose agent may come to answer? Where this account cannot tell whether one is over, one counts
    that has not opened its socket."""
    for run in _runs(root, session):
        alive = lives(str(run))
        if alive or (alive is None and not control_socket(str(run)).exists()):
            return True
    return False


def _reach(root: Path, session: str | None) -> socket.socket:
    found = _sockets(root, session)
    if not found and session is None:
        found = [control_link(str(root))]  # where the directory cannot be listed
    reached: dict[str, socket.socket] = {}
    refused: list[Unreachable] = []
    for path in found:
        try:
            reached[path.parent.parent.name] = _connect(path)
        except Unreachable as error:
            refused.append(error)
    if len(reached) == 1:
        return next(iter(reached.values()))
    for sock in reached.values():
        sock.close()
    if reached:
        names = ", ".join(sorted(reached))
        raise Unreachable(f"several sessions run below {root} ({names}): choose one with --session", Exit.USAGE)
    if refused:
        raise max(refused, key=lambda error: error.exit is Exit.DENIED)
    raise Unreachable(f"no agent of the session {session} runs below {root}")


def ask(sock: socket.socket, message: Message) -> Message:
    """One question, one answer. Raises Unreachable."""
    try:
        sock.sendall(encode(message))
    except (BrokenPipeError, ConnectionResetError):
        pass  # refused before it was read: the answer is there
    except (OSError, WireError) as error:
        raise Unreachable(f"the agent could not be asked: {error}") from error
    return answer(sock, Frames())


def answer(sock: socket.socket, frames: Frames) -> Message:
    """The next message. Raises Unreachable where none comes."""
    try:
        while (message := frames.take()) is None:
            data = sock.recv(1 << 16)
            if not data:
                raise Unreachable("the agent closed the connection without an answer")
            frames.feed(data)
    except TimeoutError:
        raise Unreachable(f"the agent did not answer within {ANSWER_SECONDS:.0f} s") from None
    except (OSError, WireError) as error:
        raise Unreachable(f"the agent's answer could not be read: {error}") from error
    return message


def _runs(root: Path, session: str | None) -> list[Path]:
    """The run directories below `root`; of one session where it is named (its directories are NAME-BOOT)."""
    try:
        directories = [entry for entry in root.iterdir() if entry.is_dir() and not entry.is_symlink()]
    except OSError:
        return []
    return [entry for entry in directories if session in (None, entry.name, entry.name.rpartition("-")[0])]


def _sockets(root: Path, session: str | None) -> list[Path]:
    """Their control sockets."""
    return [path for path in (control_socket(str(run)) for run in _runs(root, session)) if path.is_socket()]


def _connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        owner = path.stat().st_uid
        if owner not in (0, os.geteuid()):
            raise Unreachable(f"{path} belongs to uid {owner}, which is no agent's: it is not spoken to")
        sock.settimeout(ANSWER_SECONDS)
        sock.connect(str(path))
    except PermissionError:
        sock.close()
        raise Unreachable(f"{path}: this account may not connect", Exit.DENIED) from None
    except OSError as error:
        sock.close()
        raise Unreachable(f"{path}: {error.strerror}; no agent answers there") from error
    except Unreachable:
        sock.close()
        raise
    return sock
