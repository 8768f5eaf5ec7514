"""The policy in force: reads the files, loads them, swaps the whole, keeps the last good one.

Rules kept here: all I/O of policies is here and in `tool_hosts`; a file that cannot be read is a problem like any
other; a reload that fails changes nothing and says why; a reader never sees half a policy (one reference is swapped);
files that change while they are read, or that a program still writes, are read again later, so that no policy is made
of old files and new ones; a lockdown outlasts reloads.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agent.daemon.policies.embedded import embedded_policy_dir
from agent.daemon.policies.settled import being_written
from agent.daemon.policies.tool_hosts import ToolHosts
from agent.policy.bundles import Bundle
from agent.policy.load import LayerSource, PolicyError, Problem, load_policy, offer
from agent.policy.lockdown import Lock, locked
from agent.policy.model import Offer, Policy, Where
from agent.policy.packs import pack_file
from agent.policy.request import CommandRequest, Origin
from agent.values import dataclass, replace

EMBEDDED_NAME: Final = "policies"
"""How the embedded default policy is named in `where` and in problems."""

type Marks = tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]

MAX_BYTES: Final = 1 << 20
MAX_FILES: Final = 500
FIRST_TRIES: Final = 20
FIRST_SECONDS: Final = 0.1


class Bundles(Mapping[str, Bundle]):
    """The bundles `use:` may name; each is read only when it is asked for."""

    def __init__(self, directory: Path, tools: ToolHosts) -> None:
        self._files = {file.stem: file for file in sorted(directory.glob("*.yaml"))}
        self._tools = tools

    def __getitem__(self, name: str) -> Bundle:
        if name in self._files:
            return self._files[name].read_text(encoding="utf-8")
        return self._tools.bundle(name)

    def __contains__(self, name: object) -> bool:
        return name in self._files or name in self._tools.names

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._files, *self._tools.names}))

    def __len__(self) -> int:
        return len({*self._files, *self._tools.names})

    def offers(self) -> tuple[Offer, ...]:
        """What denials may point to."""
        return tuple(
            offer(name, self._files[name].read_text(encoding="utf-8")) if name in self._files else Offer(name)
            for name in self
        )


class PackFiles(Mapping[str, str]):
    """The shipped packs of command rules, name to text; each is read only when it is asked for."""

    def __init__(self, directory: Path) -> None:
        self._files = {file.stem: file for file in sorted(directory.glob("*.yaml"))}

    def __getitem__(self, name: str) -> str:
        return self._files[name].read_text(encoding="utf-8")

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


class PatternFiles:
    """The shipped shapes of credentials, (name, text) of each file; read only when a policy asks for a scan."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for file in sorted(self._directory.glob("*.yaml")):
            yield f"patterns/{file.name}", file.read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Reloaded:
    """How a reload ended: `policy` is in force. `problems` or `refused` not empty: it is still the old one.
    `unsettled`: the files were being changed, and nothing is said of them."""

    policy: Policy
    changed: bool
    problems: tuple[Problem, ...] = ()
    refused: tuple[str, ...] = ()
    unsettled: str = ""

    @property
    def faults(self) -> tuple[str, ...]:
        """Why the new policy is not in force, empty where it is."""
        return (*map(str, self.problems), *self.refused)


class Unsettled(Exception):
    """The files are being changed: neither valid nor wrong yet."""


@dataclass(frozen=True, slots=True)
class StoreState:
    """The policy in force, what is locked of it, and the marks of the files that it was first read from."""

    policy: Policy
    lock: Lock
    marks: Marks


class PolicyStore:
    """Holds the policy in force. Raises PolicyError where the first load fails. `left`: by another guard's store; its
    policy stays in force until the files hold another good one.

    The examples in the shipped packs are the build's to check (`make test`, `policy lint`), not each session's.
    `own`: places of the agent's besides the directories, which no grant opens."""

    def __init__(self, directories: Sequence[Path], left: StoreState | None = None, *, own: Sequence[str] = ()) -> None:
        self._directories = tuple(directories)
        self._own = tuple(own)
        self._lock = Lock.NONE if left is None else left.lock
        self.marks = self.look() if left is None else left.marks
        self._swapping = threading.Lock()  # reloads read files, and so come from another thread
        self._current = self._first() if left is None else left.policy

    @property
    def state(self) -> StoreState:
        """For the store of another guard."""
        with self._swapping:
            return StoreState(self._current, self._lock, self.marks)

    @property
    def current(self) -> Policy:
        """The policy in force, lockdown included."""
        return self._current

    def lock(self, lock: Lock) -> Policy:
        """Close so much of the policy in force, and of every one that a reload puts in force, until told otherwise."""
        with self._swapping:
            self._lock = lock
            self._current = locked(self._current, lock)
            return self._current

    def look(self) -> Marks:
        """What tells that a policy file was changed, added, removed, or lies behind another link; reads none.

        `marks` are those from before the first load.
        """
        return tuple((str(directory), _look(directory)) for directory in self._directories)

    def reload(self, judge: Callable[[Policy], Sequence[str]] = lambda _: ()) -> Reloaded:
        """Read the files again; put the new policy in force if it is valid and `judge` has nothing against it."""
        try:
            fresh = self._settled()
        except Unsettled as moving:
            return Reloaded(self._current, changed=False, unsettled=str(moving))
        except PolicyError as error:
            return Reloaded(self._current, changed=False, problems=error.problems)
        changed = fresh.digest != self._current.digest
        refused = tuple(judge(fresh)) if changed else ()
        if refused:
            return Reloaded(self._current, changed=False, refused=refused)
        with self._swapping:
            self._current = locked(fresh, self._lock)
            return Reloaded(self._current, changed=changed)

    def _first(self) -> Policy:
        """The policy of the start, which waits a little for files that are still being written."""
        for _ in range(FIRST_TRIES):
            try:
                self.marks = self.look()
                return self._settled()
            except Unsettled as moving:
                reason = str(moving)
                time.sleep(FIRST_SECONDS)
        where = Where(str(self._directories[0]), 1, 1)
        raise PolicyError([Problem(where, reason, "start again when the policy's files are whole")])

    def _settled(self) -> Policy:
        """What the files say, all of them as they were at one time. Raises PolicyError, Unsettled."""
        before = self.look()
        writing = being_written(self._directories)
        if writing is not None:
            raise Unsettled(f"{writing} is open for writing")
        wrong: PolicyError | None = None
        try:
            fresh = read_policy(self._directories, own=self._own, packs_proven=True)
        except PolicyError as error:
            wrong = error
        if self.look() != before:
            raise Unsettled("the policy's files changed while they were read")
        if wrong is not None:
            raise wrong
        return fresh


def _look(directory: Path) -> tuple[tuple[str, ...], ...]:
    """Name, device, inode, size and times of each file, behind all links (a mounted ConfigMap swaps a link)."""
    try:
        names = sorted(entry.name for entry in directory.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        return ((str(error.errno),),)
    found = []
    for name in names:
        try:
            is_now = (directory / name).stat()
            marks = (is_now.st_dev, is_now.st_ino, is_now.st_size, is_now.st_mtime_ns, is_now.st_ctime_ns)
        except OSError as error:
            marks = (error.errno or 0, 0, 0, 0, 0)
        found.append((name, *map(str, marks)))
    return tuple(found)


def read_policy(directories: Sequence[Path], *, own: Sequence[str] = (), packs_proven: bool = False) -> Policy:
    """The effective policy of the directories (each one layer); of none: the embedded default. `own`: places of the
    agent's besides the directories. `packs_proven`: the examples in the shipped packs are known to hold.

    Raises PolicyError with every problem, unreadable files included.
    """
    embedded = embedded_policy_dir()
    problems: list[Problem] = []
    if directories:
        sources = [_source(each, str(each), problems, first=not index) for index, each in enumerate(directories)]
    else:
        sources = [_source(embedded, EMBEDDED_NAME, problems, first=False)]
    if problems:
        raise PolicyError([*problems, *_problems_of(sources, embedded)])
    bundles = Bundles(embedded / "bundles", ToolHosts(dict(os.environ)))
    packs = PackFiles(embedded / "packs")
    policy = load_policy(
        sources,
        bundles,
        read_command=_read_command,
        offers=bundles.offers(),
        patterns=PatternFiles(embedded / "patterns"),
        packs=packs,
        proven=[pack_file(name) for name in packs] if packs_proven else (),
    )
    empty = (f"{source.name}: no *.yaml file here: the policy allows nothing" for source in sources if not source.files)
    return replace(
        policy,
        warnings=(*policy.warnings, *empty),
        agent_files=tuple(dict.fromkeys(os.path.realpath(place) for place in [*map(str, directories), *own])),
        links=_links(policy),
    )


def policy_sources(policy: Policy) -> tuple[Path, ...]:
    """The directories the policy was read from; none for the embedded default, which every installation shows."""
    return tuple(Path(layer.source) for layer in policy.layers if layer.source != EMBEDDED_NAME)


def _source(directory: Path, shown: str, problems: list[Problem], *, first: bool) -> LayerSource:
    """The files of one layer. Without any, the first layer allows nothing; a further one would take nothing away, which
    is what a directory looks like that was not mounted, and so a problem."""
    try:
        names = sorted(entry.name for entry in directory.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        where = Where(shown, 1, 1)
        fix = "make it readable for the agent's account" if isinstance(error, PermissionError) else "check the path"
        problems.append(Problem(where, f"the policy directory cannot be read: {error.strerror}", fix))
        return LayerSource(shown, ())
    for name in names:
        if name.endswith((".yml", ".YAML", ".YML")):
            problems.append(Problem(Where(f"{shown}/{name}", 1, 1), "only *.yaml files are read", "rename it to .yaml"))
    files = [name for name in names if name.endswith(".yaml")]
    if not files and not problems and not first:
        problems.append(Problem(Where(shown, 1, 1), "no *.yaml file here", "check the path, or add a policy file"))
    if len(files) > MAX_FILES:
        problems.append(Problem(Where(shown, 1, 1), f"more than {MAX_FILES} policy files", "join some"))
        files = []
    texts = [(f"{shown}/{name}", _read(directory / name, f"{shown}/{name}", problems)) for name in files]
    return LayerSource(shown, tuple((name, text) for name, text in texts if text is not None))


def _read(file: Path, shown: str, problems: list[Problem]) -> str | None:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as opened:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                problems.append(Problem(Where(shown, 1, 1), "not a regular file", "remove it, or rename it"))
                return None
            data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        problems.append(Problem(Where(shown, 1, 1), f"cannot be read: {error.strerror}", "check owner and mode"))
        return None
    if len(data) > MAX_BYTES:
        problems.append(Problem(Where(shown, 1, 1), f"longer than {MAX_BYTES} bytes", "split it"))
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        problems.append(Problem(Where(shown, line, column), "a byte that is not UTF-8", "save the file as UTF-8"))
        return None


def _problems_of(sources: Sequence[LayerSource], embedded: Path) -> tuple[Problem, ...]:
    """The problems inside the files that could be read, so that one run shows all."""
    try:
        load_policy(
            sources,
            Bundles(embedded / "bundles", ToolHosts(dict(os.environ))),
            read_command=_read_command,
            packs=PackFiles(embedded / "packs"),
        )
    except PolicyError as error:
        return error.problems
    return ()


def _links(policy: Policy) -> tuple[tuple[str, str], ...]:
    """Grants that are symlinks on this machine (``/bin`` -> ``/usr/bin``): requests come with resolved paths."""
    pairs = []
    for layer in policy.layers:
        if layer.paths is None:
            continue
        for rule in (*layer.paths.write, *layer.paths.read):
            target = os.path.realpath(rule.path)
            if target != rule.path:
                pairs.append((rule.path, target))
    return tuple(dict.fromkeys(pairs))


def _read_command(text: str) -> CommandRequest:
    """The examples of command rules, read as if typed in a session's workspace."""
    from agent.shell.requests import from_text

    return from_text(
        text,
        cwd="/vol/parhelia/workspaces/example",
        home="/home/session",
        today=datetime.now(tz=UTC).date(),
        origin=Origin(mechanism="examples"),
    )
