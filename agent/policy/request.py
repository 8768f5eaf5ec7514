"""The four questions that can be asked of a policy, as frozen values.

A request carries everything the decision needs, the date included: `decide` does no I/O and has no clock. Shell text is
analysed before it gets here (`agent.shell`), names are normalised (`agent.policy.hosts`), symlinks are resolved by
whoever builds the request.
"""

from __future__ import annotations

from datetime import date
from enum import StrEnum

from agent.values import dataclass, field


class Protocol(StrEnum):
    """What is spoken on a connection. TLS means HTTP inside TLS."""

    TLS = "tls"
    HTTP = "http"
    TCP = "tcp"


class Access(StrEnum):
    """What is wanted of a path."""

    READ = "read"
    WRITE = "write"
    EXECUTE = "execute"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asked, as far as the enforcement point knows. It never influences the verdict; it goes into the record.

    `mechanism` names the enforcement point and the way in (``proxy``, ``socks``, ``capture``, ``connect``, ``dns``,
    ``engine``, ``exec``, ``hook``, ``launch``, ``check``).
    """

    mechanism: str
    pid: int | None = None
    ppid: int | None = None
    uid: int | None = None
    exe: str | None = None
    argv: tuple[str, ...] | None = None
    source_ip: str | None = None
    source_port: int | None = None
    request_id: str | None = None
    extra: tuple[tuple[str, str], ...] = ()

    def numbered(self, request_id: str) -> Origin:
        """The same, asking under this id. (Written out: `dataclasses.replace` costs every connection several times.)"""
        return Origin(
            self.mechanism,
            self.pid,
            self.ppid,
            self.uid,
            self.exe,
            self.argv,
            self.source_ip,
            self.source_port,
            request_id,
            self.extra,
        )


class Stage(StrEnum):
    """How far an egress request has come; later stages know more and are decided again.

    LOOKUP: a DNS question; port and protocol are not known yet; `addresses` empty before resolution, judged after.
    NAME: host and port only, before any lookup. CONNECT: the resolved addresses are known (recorded once per
    connection when allowed). REQUEST: one HTTP request inside the connection, with method and path.
    """

    LOOKUP = "lookup"
    NAME = "name"
    CONNECT = "connect"
    REQUEST = "request"


@dataclass(frozen=True, slots=True)
class EgressRequest:
    """May the session reach `host`:`port`?

    `host` is normalised by `agent.policy.hosts.normalise_host`, or the canonical text of an address literal.
    `addresses` are the resolved ones (canonical text), empty before resolution. `path` is the raw request target's path
    without query, `query` what follows its ``?``. `headers` are the request's fields in order, names in lower case;
    None as for `path` where they are not known yet.
    """

    host: str
    port: int
    today: date
    origin: Origin
    protocol: Protocol = Protocol.TLS
    stage: Stage = Stage.NAME
    addresses: tuple[str, ...] = ()
    method: str | None = None
    path: str | None = None
    query: str | None = None
    headers: tuple[tuple[str, str], ...] | None = None
    sni: str | None = None


UNKNOWN = "\0"
"""Stands in a word of a `SimpleCommand` for text that cannot be known before the command runs. No argument of a real
process can hold this character (execve(2)). A word that is nothing else may be any number of words."""


@dataclass(frozen=True, slots=True)
class SimpleCommand:
    """One program invocation as it would be executed, after quotes, expansions and wrappers are taken away.

    `program` is the base name that decides meaning (``rm`` for ``/usr/bin/rm``). `argv[0]` is the program as written.
    `assignments` are the variables set for it: in front of it, by ``env``, exported before, or found in its environment
    at the exec. `redirects` are (operator, target) pairs. `wrappers` names what was unwrapped, outermost first
    (``("sudo", "env")``). `cwd` is where it runs, None where that is unknown. `piped_from` names the programs whose
    output is at its standard input, the first of the pipeline first; `code_from` those whose output it executes (a
    shell's or interpreter's standard input, ``-c "$(…)"``, ``<(…)``, a file that the same text wrote). Words that
    another program wrote, run as a command (``$(curl …)``), are the program ``eval`` with their `code_from`.
    `globs` are the positions in `argv` of words whose ``*``,
    ``?`` and ``[`` the shell has still to expand. A redirection without a command has the program ``""``.
    """

    program: str
    argv: tuple[str, ...]
    cwd: str | None = None
    assignments: tuple[tuple[str, str], ...] = ()
    redirects: tuple[tuple[str, str], ...] = ()
    wrappers: tuple[str, ...] = ()
    piped_from: tuple[str, ...] = ()
    code_from: tuple[str, ...] = ()
    globs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Understood:
    """One line of the tree of what was understood of a command text, in the order of the walk. `depth` is its distance
    from the root; `what` says what stands here (``command``, ``function``, ``substitution``, ``code``, ``unknown``);
    `command` is the position in `CommandRequest.commands` where it is one."""

    depth: int
    what: str
    text: str
    command: int | None = None


@dataclass(frozen=True, slots=True)
class CommandRequest:
    """May this command run?

    `text` is what was asked, for the record. `commands` is everything it can run. `unverifiable` says why its meaning
    cannot be known beforehand, None where it can. `supervised`: every exec it leads to is decided again by the exec
    ring. `certain`: only what is known for certain counts (a script's body, whose every exec is decided again anyway).
    `understood` is how the commands were found, for the reader (``check command --explain``); it decides nothing.
    `caller`: of an exec, the name of the program that makes it, where the session cannot have written that file.
    """

    text: str
    commands: tuple[SimpleCommand, ...]
    today: date
    origin: Origin
    unverifiable: str | None = None
    supervised: bool = False
    cwd: str = "/"
    home: str = "/"
    understood: tuple[Understood, ...] = ()
    caller: str = ""
    certain: bool = False

    def made_by(self, origin: Origin, caller: str) -> CommandRequest:
        """The same, asked by `origin` and of an exec that `caller` makes. Field by field: it is made at every exec."""
        return CommandRequest(
            self.text,
            self.commands,
            self.today,
            origin,
            self.unverifiable,
            self.supervised,
            self.cwd,
            self.home,
            self.understood,
            caller,
            self.certain,
        )


@dataclass(frozen=True, slots=True)
class PathRequest:
    """May the session access `path`? `path` is absolute, normalised and free of symlinks.

    `home` and `tmpdir` are the session's own and granted to it; empty: not known, not granted.
    """

    access: Access
    path: str
    today: date
    origin: Origin
    asked: str = field(default="")
    home: str = ""
    tmpdir: str = ""


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """May this tool of a coding agent be called? `known`: the agent knows what it does, and asks about that besides."""

    tool: str
    known: bool
    today: date
    origin: Origin


Request = EgressRequest | CommandRequest | PathRequest | ToolRequest
