"""What an exec runs further without another exec: the program behind the dynamic loader, and the text of scripts.

Rules kept here:
- Files are found as the task would find them (its root, its working directory) and read as the session; what it cannot
  read, its interpreter cannot either.
- A script of the system's own that the session cannot change is not read.
- A body's text is read anew at each exec and understood once: it is remembered by its SHA-256. Small ones are
  understood with their arguments and directory, larger ones without.
- What cannot be known of a body denies nothing, since every exec in it comes here again; a body that was not read, or
  not to its end, is unverifiable.

Not seen: a script that is rewritten between this look and its interpreter's, a file that a script sources or imports.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import pairwise

from agent.enforce.commands.executable import out_of_sight
from agent.enforce.commands.program import Look, Run
from agent.enforce.commands.programs import Programs
from agent.enforce.memory import Task, path_of, readable
from agent.enforce.walk import Closed, by_names, walked
from agent.policy.decision import Decision, Verdict
from agent.policy.request import CommandRequest
from agent.shell.fold import Word
from agent.shell.scripts import Body, Environment, reads_scripts, scripts, understand
from agent.shell.steps import SHELL, Inner, Script, basename, reads_descriptor
from agent.shell.unwrap import unwrap
from agent.shell.wrappers import LOADERS
from agent.values import dataclass, replace

MAX_BODY = 256 << 10
"""Bytes of a script that are read; of a larger one nothing is."""
SMALL = 4 << 10
"""Bytes up to which a body is understood with its arguments and directory."""

_REMEMBERED = 256
_NESTED = 4
_SYSTEM = ("/usr/", "/bin/", "/sbin/", "/lib", "/etc/", "/opt/")
_ENDINGS = {"python": ("/__main__.py",), "node": (".js", ".mjs", ".cjs", "/index.js")}
_LIBRARY_PATH = "--library-path"

type _Key = tuple[bytes, str, tuple[str, ...] | None, str | None]


@dataclass(frozen=True, slots=True)
class Found:
    """A script as it was read: `text` is None where it could not be, and `why` says so."""

    script: Script
    path: str
    text: bytes | None
    why: str = ""


def loaded(task: Task, run: Run, environment: Environment, look: Look) -> Iterator[Run]:
    """The programs that the dynamic loader maps in this run, where it is one (ld.so(8)): the kernel sees no exec."""
    for _ in range(_NESTED):
        name = next((base for base in map(basename, run.names()) if base.startswith(LOADERS)), None)
        if name is None:
            return
        words = [Word(readable(word)) for word in run.argv]
        inner = next((step for step in unwrap(name, words, None) if isinstance(step, Inner)), None)
        if inner is None:
            return
        argv = run.argv[len(run.argv) - len(inner.words) :]
        found = _mapped(task, run.argv, argv, environment, look)
        if found is None:
            return
        yield found
        run = found


def _mapped(
    task: Task, options: tuple[bytes, ...], argv: tuple[bytes, ...], environment: Environment, look: Look
) -> Run | None:
    """The file that the loader takes for ``argv[0]``: along the library path where it names no directory."""
    paths = [argv[0]]
    if b"/" not in argv[0]:
        given = [after for before, after in pairwise(options) if before == _LIBRARY_PATH.encode()]
        given += [value.encode() for name, value in environment if name == "LD_LIBRARY_PATH"]
        paths += [b"%s/%s" % (part or b".", argv[0]) for value in given for part in value.split(b":")]
    for path in paths:
        try:
            with walked(task, task.cwd, path) as opened:
                file, _ = look(opened)
        except Closed as closed:
            hidden = out_of_sight(closed)
            if hidden is None:
                continue
            file = hidden
        except OSError:
            continue
        return Run(argv, readable(path), file)
    return None


def is_loader(run: Run) -> bool:
    """May this run map a program that no exec shows (`loaded`)?"""
    return any(basename(name).startswith(LOADERS) for name in run.names())


def named_scripts(run: Run, environment: Environment) -> tuple[Script, ...]:
    """The scripts that this run reads if they are there, each once."""
    if not environment and not run.file.text and not any(reads_scripts(basename(name)) for name in run.names()):
        return ()
    argv = [readable(word) for word in run.argv]
    named = [script for name in run.names() for script in scripts(name, argv, environment)]
    if run.file.text:  # execve(2) says ENOEXEC; execvp(3) and every shell go on with a shell
        named.append(Script(SHELL, Word(run.asked), tuple(Word(word) for word in argv[1:])))
    return tuple(dict.fromkeys(named))


class Scripts:
    """Reads the bodies of one session's scripts and says what they can run. For one thread only."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._understood: OrderedDict[_Key, Body] = OrderedDict()
        self._cleared: OrderedDict[tuple[_Key, str, str], None] = OrderedDict()

    def find(self, task: Task, named: Iterable[Script]) -> tuple[Found, ...]:
        """Those of the `named` scripts that are there to be read."""
        found = (self._read(task, script) for script in named)
        return tuple(one for one in found if one is not None)

    def request(self, found: Found, main: CommandRequest) -> CommandRequest:
        """May this body run? `main` is the request for the exec that reads it."""
        extra = (*main.origin.extra, ("script", found.path))
        asked = replace(main, origin=replace(main.origin, extra=extra), understood=())
        if found.text is None:
            return replace(asked, commands=(), unverifiable=found.why)
        body = self._understand(found, main)
        if not body.whole:
            return replace(asked, commands=body.commands, unverifiable=f"{found.path} is too long to be followed")
        return replace(asked, commands=body.commands, unverifiable=None, certain=True)

    def is_cleared(self, found: Found, main: CommandRequest, decision: Decision) -> bool:
        """Was this body allowed before, by the policy of `decision` and on this day?"""
        return self._clearance(found, main, decision) in self._cleared

    def clear(self, found: Found, main: CommandRequest, decision: Decision) -> None:
        """Remember what was decided of a body, where it is an allow."""
        if decision.verdict is Verdict.ALLOW and decision.policy_digest:
            self._cleared[self._clearance(found, main, decision)] = None
            if len(self._cleared) > _REMEMBERED:
                self._cleared.popitem(last=False)

    def _clearance(self, found: Found, main: CommandRequest, decision: Decision) -> tuple[_Key, str, str]:
        return _key(found, main.cwd), decision.policy_digest, main.today.isoformat()

    def _understand(self, found: Found, main: CommandRequest) -> Body:
        key = _key(found, main.cwd)
        body = self._understood.get(key)
        if body is None:
            _, _, arguments, cwd = key
            text = readable(found.text or b"")
            body = understand(found.script, text, home=main.home, cwd=cwd, arguments=arguments)
            self._understood[key] = body
            if len(self._understood) > _REMEMBERED:
                self._understood.popitem(last=False)
        return body

    def _read(self, task: Task, script: Script) -> Found | None:
        """None where there is nothing to read: no such file, one that the session cannot read, the system's own."""
        endings = ("", *_ENDINGS.get(script.language, ()))
        for path in (spelled + ending.encode() for spelled in _spellings(script.path.text) for ending in endings):
            try:
                opened = by_names(task, task.cwd, path)  # as /proc/self is a file's place here too
            except OSError:
                continue
            try:
                found = self._body(script, opened)
            except PermissionError:
                continue
            except OSError as error:  # a lease, for one, which its interpreter would wait for
                why = f"{script.path.text} cannot be read at once ({error.strerror})"
                return Found(script, path_of(opened), None, why)
            finally:
                os.close(opened)
            if found is not None:
                return found
        return None

    def _body(self, script: Script, opened: int) -> Found | None:
        status, path = os.fstat(opened), path_of(opened)
        if stat.S_ISDIR(status.st_mode):
            return None
        if not stat.S_ISREG(status.st_mode):
            why = f"{path} is no file, so what it holds is not known before it is read"
            descriptor = reads_descriptor(script.path.text) or stat.S_ISCHR(status.st_mode)
            return None if descriptor else Found(script, path, None, why)
        if path.startswith(_SYSTEM) and not self._programs.changeable(status):
            return None
        if status.st_size > MAX_BODY:
            return Found(script, path, None, f"{path} has more than {MAX_BODY} bytes, so it was not read")
        reader = os.open(f"/proc/self/fd/{opened}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            text = os.pread(reader, MAX_BODY + 1, 0)
        finally:
            os.close(reader)
        if len(text) > MAX_BODY or (script.language != SHELL and b"\0" in text):
            return Found(script, path, None, f"{path} is no text that can be read here")
        return Found(script, path, text)


def _spellings(path: str) -> Iterator[bytes]:
    """The bytes that `path` may be the readable form of (`memory.readable`): itself, or with its escapes undone."""
    yield path.encode(errors="replace")
    if "\\x" in path:
        yield re.sub(
            rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), path.encode(errors="replace")
        )


def _key(found: Found, cwd: str) -> _Key:
    digest = hashlib.sha256(found.text or b"").digest()
    if found.text is None or len(found.text) > SMALL:
        return digest, found.script.language, None, None
    return digest, found.script.language, tuple(word.text for word in found.script.positional), cwd
