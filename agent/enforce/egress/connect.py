"""Sockets without a network namespace: made, connected, bound and listened with by the guard, in the session's stead.

Rules kept here:
- No call is ever let through to the kernel as given (its arguments could be swapped after the check). The guard makes
  each socket itself, gives the session a copy, and makes the call on its own copy, with an address of its own choice.
- A connection goes to the proxy, to a listener of the session's own, or to the egress process, which is told where it
  was meant to go and decides that like any other (`agent.session.preamble`). Other loopback services are outside.
- What the session listens on is on loopback. A wildcard becomes loopback; anything else is refused.
- UNIX sockets: only those in trees that the session may write, abstract names only where it bound them itself.
- A socket that the guard did not make, or no longer has, cannot be connected.

What follows for programs: getpeername shows the egress process, getsockname of a server shows loopback, a connection
that the policy denies is made and then closed. Called on the supervisor's thread; denials go to `deny` as network
events of mechanism ``connect``.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address

from agent.enforce.egress.dialling import Doors, bind_inet, forward, reach
from agent.enforce.egress.on_behalf import OnBehalf, Outcome
from agent.enforce.egress.own_sockets import OWN_ADDRESSES, Kept, OwnSockets
from agent.enforce.egress.sockaddr import MAX_LENGTH, AddressError, Inet, Netlink, Unix, parse_name, read_address
from agent.enforce.memory import Task, Unreadable, readable
from agent.enforce.notify_loop import DENIED, GIVEN, Answer
from agent.enforce.who import origin_of, signed
from agent.linux import notify
from agent.linux.process import FilesystemIdentity
from agent.linux.syscalls import number, syscall
from agent.policy.decision import Decision, Severity, Verdict
from agent.policy.request import EgressRequest, Origin, Protocol
from agent.policy.rule_ids import AGENT_FAULT
from agent.values import dataclass, replace

CALLS = ("socket", "connect", "bind", "listen")
_FLAGS = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
_LOCALHOST, _LOCALHOST6 = IPv4Address("127.0.0.1"), IPv6Address("::1")

type Deny = Callable[[EgressRequest, Decision], object]


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal of this module's own, for the record: what was asked for, by which rule it fell, and why."""

    host: str
    port: int
    rule: str
    reason: str
    error: int = errno.EACCES


class Connector:
    """`agent.enforce.notify_loop.Handler` for `CALLS`. Refuses every connection until `open`.

    `session_uid`, `session_gid`: the session's user, None where it is the agent's own.
    """

    def __init__(
        self, deny: Deny, doors: Doors, behalf: OnBehalf, *, session_uid: int | None, session_gid: int | None
    ) -> None:
        self._deny = deny
        self._doors = doors
        self._behalf = behalf
        self._eyes = FilesystemIdentity(session_uid, session_gid)
        self._own = OwnSockets()
        self._open = False
        self._steps = {
            number("connect"): self._connect,
            number("bind"): self._bind,
            number("listen"): self._listen,
        }

    def renew(self, token: bytes) -> None:
        """What makes a forwarded connection's header true from here on."""
        self._doors = replace(self._doors, token=token)

    def handlers(self) -> dict[int, Connector]:
        """For the loop's table."""
        return {found: self for name in CALLS if (found := number(name)) is not None}

    def open(self) -> None:
        """The session starts."""
        self._open = True

    def answer(self, stopped: notify.Notification, listener: int) -> Answer:
        step = self._steps.get(stopped.number)
        if step is None:
            return self._socket(stopped, listener)
        if not self._open:
            return DENIED
        try:
            with self._eyes, Task(stopped.tid) as task:
                if not notify.is_valid(listener, stopped.id):
                    return DENIED
                found = self._made(step, stopped, task)
                who = origin_of(task.identity, "connect") if isinstance(found, Refused) else None
        except ProcessLookupError:
            return DENIED
        except Unreadable as error:
            if not notify.is_valid(listener, stopped.id):  # killed meanwhile: nothing is done, and nothing was refused
                return DENIED
            found, who = Refused("?", 0, "connect-unreadable", str(error)), Origin("connect", pid=stopped.tid)
        if isinstance(found, int):
            return Answer(found)
        self._record(found, who or Origin("connect", pid=stopped.tid))
        return Answer(found.error)

    def fault(self, stopped: notify.Notification) -> None:
        refused = Refused("?", 0, AGENT_FAULT, "the agent could not decide; see its log")
        self._record(refused, Origin("connect", pid=stopped.tid))

    def overdue(self, stopped: notify.Notification, seconds: float) -> None:
        refused = Refused("?", 0, "connect-deadline", f"not decided within {seconds:g} s")
        self._record(refused, Origin("connect", pid=stopped.tid))

    def took(self, stopped: notify.Notification, seconds: float) -> None:
        """Not measured: what the policy says about a connection is decided, and measured, in the egress process."""

    def behind(self, pid: int) -> int:
        """Whom the other side of a UNIX connection has before it: SO_PEERCRED names a child of the guard's."""
        return self._behalf.behind(pid)

    def close(self) -> None:
        self._own.close()
        self._behalf.close()

    def _record(self, refused: Refused, origin: Origin) -> None:
        request = EgressRequest(refused.host, refused.port, datetime.now(UTC).date(), origin, Protocol.TCP)
        decision = Decision(Verdict.DENY, refused.rule, refused.reason, "", severity=Severity.HIGH)
        self._deny(request, decision)

    # --- socket(2)

    def _socket(self, stopped: notify.Notification, listener: int) -> Answer:
        family, kind, protocol = (signed(word) for word in stopped.arguments[:3])
        try:
            with self._eyes:
                sock = socket.socket(family, kind, protocol)
        except OSError as error:
            return Answer(error.errno or errno.EACCES)
        try:
            close_on_exec = bool(kind & socket.SOCK_CLOEXEC)
            notify.add_fd(listener, stopped.id, sock.fileno(), close_on_exec=close_on_exec, answer=True)
        except OSError as error:
            sock.close()
            return GIVEN if error.errno == errno.ENOENT else Answer(error.errno or errno.EACCES)
        self._own.keep(sock)
        return GIVEN

    # --- connect(2), bind(2), listen(2): an errno, 0 where the call was made

    def _made(
        self,
        step: Callable[[Kept, notify.Notification, Task], int | Refused],
        stopped: notify.Notification,
        task: Task,
    ) -> int | Refused:
        try:
            inode = _inode(task.identity.tid, signed(stopped.arguments[0]))
            kept = self._own.get(inode)
            if kept is not None:
                return step(kept, stopped, task)
        except AddressError as error:
            return error.errno
        except OSError as error:
            return error.errno or errno.EACCES
        if not self._own.is_finished(inode):
            return Refused("?", 0, "socket-unknown", "the socket was not made by this session, or long ago")
        if stopped.number == number("connect"):
            return errno.EISCONN
        return 0 if stopped.number == number("listen") and self._own.is_listener(inode) else errno.EINVAL

    def _connect(self, kept: Kept, stopped: notify.Notification, task: Task) -> int | Refused:
        match _address(kept, stopped, task):
            case Inet() as destination:
                found = self._connect_inet(kept, destination, task)
            case Unix() as destination:
                found = self._connect_unix(kept, destination, task)
            case Netlink(port=0, groups=0, raw=raw):  # the kernel itself
                syscall("connect", kept.sock.fileno(), raw, len(raw))
                found = 0
            case Netlink():
                return errno.EPERM
        if found == 0:
            self._own.finished(kept)
        return found

    def _connect_inet(self, kept: Kept, destination: Inet, task: Task) -> int | Refused:
        if destination.wildcard:  # the kernel's meaning of it, ip(7)
            local = _LOCALHOST if isinstance(destination.address, IPv4Address) else _LOCALHOST6
            destination = Inet(kept.family, local, destination.port)
        if destination.address == _LOCALHOST and destination.port == self._doors.proxy:
            return reach(kept, destination, self._behalf.patience)
        if destination.loopback and destination.port == self._doors.forwarded:
            reason = "this is where the agent hands connections to its proxy"
            return Refused(str(destination.address), destination.port, "connect-agent", reason)
        if destination.loopback:
            own = self._own.listener_for(destination)
            if own is not None:
                return reach(kept, own, self._behalf.patience)
        return forward(kept, destination, task.identity.tgid, self._doors, self._behalf.patience)

    def _connect_unix(self, kept: Kept, destination: Unix, task: Task) -> int | Refused:
        if destination.path:
            return _settled(self._behalf.connect(kept.sock, destination.path, task))
        if destination.abstract and self._own.owns_abstract(destination.abstract, kept):
            return self._behalf.connect_abstract(kept.sock, destination.raw, task).error
        return Refused(f"unix:@{readable(destination.abstract)}", 0, "unix-socket", _NOT_OWN, errno.ECONNREFUSED)

    def _bind(self, kept: Kept, stopped: notify.Notification, task: Task) -> int | Refused:
        match _address(kept, stopped, task):
            case Inet() as wanted:
                return self._bind_inet(kept, wanted)
            case Unix() as wanted:
                outcome = self._behalf.bind(kept.sock, wanted.path, wanted.raw, task)
                name = kept.sock.getsockname()
                if outcome.error == 0 and isinstance(name, bytes):
                    self._own.bound_abstract(name[1:], kept)
                return _settled(outcome)
            case Netlink() as wanted:
                syscall("bind", kept.sock.fileno(), wanted.raw, len(wanted.raw))
                self._own.finished(kept)
                return 0

    def _bind_inet(self, kept: Kept, wanted: Inet) -> int | Refused:
        if not (wanted.wildcard or wanted.address in OWN_ADDRESSES):
            reason = "nobody outside may connect to the session: it listens on 127.0.0.1 and ::1 only"
            return Refused(str(wanted.address), wanted.port, "listen-outside", reason, errno.EADDRNOTAVAIL)
        if wanted.loopback and wanted.port == self._doors.forwarded:
            return errno.EADDRINUSE
        try:
            bind_inet(kept, wanted)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not self._own.release_abandoned(wanted.port):
                raise
            bind_inet(kept, wanted)
        kept.bound = True
        return 0

    def _listen(self, kept: Kept, stopped: notify.Notification, task: Task) -> int | Refused:
        backlog = signed(stopped.arguments[1])
        if kept.family == socket.AF_UNIX:
            error = self._behalf.listen(kept.sock, backlog, task).error
        elif kept.family == socket.AF_NETLINK:
            return errno.EOPNOTSUPP
        else:
            error = self._listen_inet(kept, backlog)
        if error == 0:
            self._own.finished(kept)
        return error

    def _listen_inet(self, kept: Kept, backlog: int) -> int:
        where = parse_name(kept.sock.getsockname())
        if not where.loopback:  # listen(2) would take a port on every address
            bind_inet(kept, Inet(kept.family, where.address.__class__(0), 0))
            where = parse_name(kept.sock.getsockname())
        if not where.loopback:
            return errno.EADDRNOTAVAIL
        kept.sock.listen(backlog)
        self._own.listens(kept, where)
        return 0


_NOT_OWN = "only sockets in places that the session may write, and names that it bound itself"


def _settled(outcome: Outcome) -> int | Refused:
    if not outcome.refused:
        return outcome.error
    return Refused(f"unix:{outcome.refused}", 0, "unix-socket", _NOT_OWN, outcome.error)


def _address(kept: Kept, stopped: notify.Notification, task: Task) -> Inet | Unix | Netlink:
    """The address argument, read once. Raises AddressError, and Unreadable where it is not mapped."""
    pointer, length = stopped.arguments[1], signed(stopped.arguments[2])
    if not 0 <= length <= MAX_LENGTH:
        raise AddressError(errno.EINVAL)
    return read_address(kept.family, task.memory.exactly(pointer, length))


def _inode(tid: int, descriptor: int) -> int:
    """The socket behind the task's descriptor. Raises OSError as the kernel would."""
    try:
        target = os.readlink(f"/proc/{tid}/fd/{descriptor}")  # noqa: PTH115
    except FileNotFoundError:
        raise OSError(errno.EBADF, "no such descriptor") from None
    kind, _, rest = target.partition(":[")
    if kind != "socket" or not rest.endswith("]"):
        raise OSError(errno.ENOTSOCK, "not a socket")
    return int(rest[:-1])
