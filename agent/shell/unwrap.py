"""What a command hands on: an inner command, shell text, inline code; or a reason why that cannot be known.

Rules: only what the program's manual says it executes is code, everything else is data (`echo`, `grep`, a commit
message); where the program reads what it runs from a pipe whose content is unknown, that is said, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType

from agent.policy.program_names import plain_name
from agent.shell.batches import parallel_steps, xargs_steps
from agent.shell.carriers import carried_steps
from agent.shell.carriers_table import CARRIERS
from agent.shell.databases import PASTED_VERBS, pasted_sql
from agent.shell.dialects import sed_steps
from agent.shell.finding import fd_steps, find_steps
from agent.shell.getopt import Options, read_options
from agent.shell.git import git_steps
from agent.shell.interpreters import awk_steps, interpreter_steps, is_interpreter, shell_steps, su_steps
from agent.shell.pieces import Word
from agent.shell.runners import RUNNERS
from agent.shell.steps import Inner, Opaque, ShellText, Step, basename, joined, split_plain, word_at
from agent.shell.wrappers import LOADERS, MULTICALL, SHELLS, WRAPPERS, Wrapper
from agent.values import replace


def unwrap(
    program: str,
    words: Sequence[Word],
    stdin: Word | None,
    piped_from: Sequence[str] = (),
) -> list[Step]:
    """The steps that running `words` (base name `program`) takes further. `stdin`: the text piped in, None where
    nothing is piped, and the programs that it comes from."""
    if program in _COMPOUND:
        return [Opaque(f"{program} stands where it is not understood here")]
    if program in SHELLS:
        return shell_steps(words, stdin)
    if program in MULTICALL:
        return _applet(words)
    if program.startswith(LOADERS):
        return _loader(words)
    found: list[Step] = [*pasted_sql(words)]
    carrier = CARRIERS.get(program)
    if carrier is not None:
        words = _in_silence(words) if program in _EDITORS else words
        found += carried_steps(words, stdin, carrier, from_file=_PASSES_ON.issuperset(piped_from))
    special = _SPECIAL.get(program)
    if special is not None:
        return found + special(words, stdin)
    if program == "git":
        return found + git_steps(words)
    if program in WRAPPERS:
        return found + _wrapped(program, words, WRAPPERS[program], stdin)
    if program in RUNNERS:
        found += [step for row in RUNNERS[program] for step in _wrapped(program, words, row, stdin)]
    return found + interpreter_steps(program, words, stdin)


_EDITORS = frozenset(("vim", "vi", "nvim", "ex", "view", "vimx", "nex"))


def _in_silence(words: Sequence[Word]) -> list[Word]:
    """Behind ``-e`` vim's ``-s`` is no option with a value but "silent" (vim(1)): left away."""
    found: list[Word] = []
    ex = basename(words[0].text) == "ex"
    for word in words:
        silent = re.fullmatch(r"-(\w*[eE]\w*)s|-s", word.text)
        if silent is None or not (ex or silent[1]):
            found.append(word)
        elif silent[1]:
            found.append(word._replace(text=f"-{silent[1]}"))
        ex |= re.fullmatch(r"-\w*[eE]\w*", word.text) is not None
    return found


def is_known(program: str) -> bool:
    """False where `unwrap` finds no steps for `program`, nor for its name in lower case, whatever its words are and
    whatever it reads: no table names it."""
    spelled = plain_name(program)
    return _is_known(program) or (spelled != program and _is_known(spelled))


def _is_known(program: str) -> bool:
    return (
        program.startswith(LOADERS)
        or program.lower() in PASTED_VERBS
        or any(program in table for table in (_COMPOUND, SHELLS, MULTICALL, CARRIERS, _SPECIAL, WRAPPERS, RUNNERS))
        or program == "git"
        or is_interpreter(program)
    )


_PASSES_ON = frozenset(
    [
        *("cat", "zcat", "gunzip", "gzip", "xz", "xzcat", "bzcat", "bzip2", "zstd", "zstdcat", "pv", "head", "tail"),
        *("grep", "sed", "tr", "envsubst", "pg_dump", "pg_dumpall", "pg_restore", "mysqldump", "mariadb-dump"),
    ]
)
"""What these write is the content of files or of a database: no more known than a script that is named."""

_COMPOUND = frozenset(("for", "case", "select", "function", "[["))


def _coproc(words: Sequence[Word], _stdin: Word | None) -> list[Step]:
    """``coproc [NAME] COMMAND`` (bash(1)); a name is only taken before a compound command."""
    found: list[Step] = [Inner(tuple(words[1:]))] if len(words) > 1 else []
    program = basename(word_at(words, 1).text)
    if program in SHELLS or program in MULTICALL or is_interpreter(program):
        found.append(Opaque("what a coprocess will read is not known"))
    if len(words) > 2 and words[2].text in ("{", "if", "while", "until", "("):
        found.append(Inner(tuple(words[2:])))
    return found


def _applet(words: Sequence[Word]) -> list[Step]:
    """``busybox APPLET …``, ``coreutils --coreutils-prog=APPLET …``."""
    first = word_at(words, 1)
    named = re.match(r"--coreutils-prog(?:-shebang)?=", first.text)
    if named is not None:
        return [Inner((first._replace(text=first.text[named.end() :]), *words[2:]))]
    return [Inner(tuple(words[1:]))] if len(words) > 1 else []


def _wrapped(program: str, words: Sequence[Word], wrapper: Wrapper, stdin: Word | None) -> list[Step]:
    if program == "env":
        words = _split_string(words)
    if program == "command" and any(w.text.startswith("-") and set(w.text) & set("vV") for w in words[1:2]):
        return []
    read = _leading(words, wrapper)
    if read is None:
        return []
    steps: list[Step] = [ShellText(value) for name, value in read.given if name in wrapper.shell_options]
    directory = next((value for name, value in read.given if name in wrapper.directory), None)
    start = _first_inner(words, read, wrapper)
    found: list[Step] = list(steps)
    programs = [value for name, value in read.given if name in wrapper.program_options and value.text]
    if programs:
        found += [Inner((program, *words[read.end + wrapper.skip :]), directory) for program in programs]
    elif start is not None:
        found += _inner(words[start:], wrapper, directory, text=wrapper.text and not _takes_argv(read, wrapper))
        if wrapper.skip and not steps:
            found += _shell_option_behind(words[start:], wrapper)
    if not found and stdin is not None and _starts_shell(read, wrapper):
        found.append(ShellText(stdin))
    if read.uncertain or (read.unlisted and not wrapper.lenient):
        found.append(Opaque(f"{program} has an option that is not known here: {read.unlisted or 'a variable'}"))
    if read.unlisted and not read.dashes and start is not None and not wrapper.behind:
        operands = [i for i in range(start, len(words)) if not words[i].text.startswith("-")]
        found += [Inner(tuple(words[i:])) for i in operands[1:5]]
    return found


def _leading(words: Sequence[Word], wrapper: Wrapper) -> Options | None:
    """The options before the inner command, those before and behind the subcommand included; None where it is another
    subcommand."""
    read = read_options(words, 1, wrapper)
    if not wrapper.subcommand:
        return read
    for path in wrapper.subcommand:
        at = read
        for name in path.split():
            if at.end >= len(words) or not fnmatchcase(words[at.end].text, name):
                break
            inner = read_options(words, at.end + 1, wrapper)
            inner.unlisted = inner.unlisted or at.unlisted
            inner.given = [*at.given, *inner.given]
            inner.uncertain |= at.uncertain
            at = inner
        else:
            return at
    return None


def _first_inner(words: Sequence[Word], read: Options, wrapper: Wrapper) -> int | None:
    """Where the inner command begins; None where there is none."""
    if wrapper.behind and not read.dashes:
        marks = [i for i in range(1, len(words)) if words[i].text in wrapper.behind]
        return marks[0] + 1 if marks else None
    start = read.end + wrapper.skip
    if wrapper.skip and not wrapper.behind and wrapper.late:
        start = read_options(words, start, wrapper).end
    elif wrapper.skip and start < len(words) and words[start].text == "--":
        start += 1
    return start


def _split_string(words: Sequence[Word]) -> Sequence[Word]:
    """``env -S TEXT REST``: the text becomes words in its place, options of env among them (env(1))."""
    words = [Word("-i") if word.text == "-" and index == 1 else word for index, word in enumerate(words)]
    for index, word in enumerate(words[1:], 1):
        spelled = re.fullmatch(r"(?:-[iv0]*S|--split-string=?)(.*)", word.text, re.DOTALL)
        if spelled is not None and spelled[1]:
            return [*words[:index], *split_plain(word._replace(text=spelled[1])), *words[index + 1 :]]
        if spelled is not None:
            return [*words[:index], *split_plain(word_at(words, index + 1)), *words[index + 2 :]]
        if not word.text.startswith("-") and "=" not in word.text:
            break
    return words


def _shell_option_behind(words: Sequence[Word], wrapper: Wrapper) -> list[Step]:
    """``flock FILE -c TEXT``: the option stands behind the skipped operand."""
    spelled = {f"-{name}" if len(name) == 1 else f"--{name}" for name in wrapper.shell_options}
    return [ShellText(words[1])] if len(words) > 1 and words[0].text in spelled else []


def _starts_shell(read: Options, wrapper: Wrapper) -> bool:
    given = {name for name, _ in read.given}
    return ("" in wrapper.starts_shell or not given.isdisjoint(wrapper.starts_shell)) and given.isdisjoint(
        wrapper.no_shell
    )


def _takes_argv(read: Options, wrapper: Wrapper) -> bool:
    return any(name in wrapper.argv_options for name, _ in read.given)


def _inner(words: Sequence[Word], wrapper: Wrapper, directory: Word | None, *, text: bool) -> list[Step]:
    assignments: list[tuple[str, str]] = []
    index = 0
    while wrapper.assigns and index < len(words) and re.match("[^=]+=", words[index].text):
        name, _, value = words[index].text.partition("=")
        assignments.append((name, value))
        index += 1
    rest = tuple(words[index:])
    if not rest:
        return []
    if text:
        return [ShellText(joined(rest))]
    return [Inner(rest, directory, tuple(assignments))]


def _loader(words: Sequence[Word]) -> list[Step]:
    """ld.so(8): options of the loader, then the program."""
    index = 1
    while index < len(words) and words[index].text.startswith("--"):
        valued = ("--library-path", "--preload", "--argv0", "--audit", "--inhibit-rpath", "--glibc-hwcaps-mask")
        index += 2 if words[index].text in (*valued, "--glibc-hwcaps-prepend") else 1
    return [Inner(tuple(words[index:]))] if index < len(words) else []


def _capsh(words: Sequence[Word], _stdin: Word | None) -> list[Step]:
    """capsh(1): what stands behind ``--`` are the arguments of a shell; behind ``==`` capsh's own once more."""
    shell = next((word.text[8:] for word in words if word.text.startswith("--shell=")), "/bin/bash")
    for index, word in enumerate(words):
        if word.text == "--":
            return [Inner((Word(shell), *words[index + 1 :]))]
    return []


def _cmake(words: Sequence[Word], _stdin: Word | None) -> list[Step]:
    """``cmake -E rm|env|time|chdir …`` (cmake(1), "Run a Command-Line Tool")."""
    tool, rest = word_at(words, 2).text, tuple(words[3:])
    if word_at(words, 1).text != "-E" or not rest:
        return []
    match tool:
        case "rm" | "remove" | "remove_directory":
            return [Inner((Word("rm"), *([Word("-r")] if tool == "remove_directory" else []), *rest))]
        case "env" | "time":
            return [Inner((Word(tool), *rest))]
        case "chdir":
            return [Inner(rest[1:], rest[0])]
    return []


def _runuser(words: Sequence[Word], stdin: Word | None) -> list[Step]:
    """runuser(1): with ``-u`` it runs a command, without it reads like su."""
    if any(re.match(r"-[a-zA-Z]*u|--user", word.text) for word in words[1:3]):
        return _wrapped("runuser", words, WRAPPERS["runuser"], stdin)
    return su_steps(words, stdin)


def _setarch(words: Sequence[Word], stdin: Word | None) -> list[Step]:
    """setarch(8): the architecture may be left out, so what follows is taken both ways."""
    without = WRAPPERS["linux64"]
    rows = (without, replace(without, skip=1, late=True))
    return [step for row in rows for step in _wrapped("setarch", words, row, stdin)]


def _find(words: Sequence[Word], _stdin: Word | None) -> list[Step]:
    return find_steps(words)


def _fd(words: Sequence[Word], _stdin: Word | None) -> list[Step]:
    return fd_steps(words)


_SPECIAL: Mapping[str, Callable[[Sequence[Word], Word | None], list[Step]]] = MappingProxyType(
    {
        "su": su_steps,
        "runuser": _runuser,
        "capsh": _capsh,
        "setarch": _setarch,
        "cmake": _cmake,
        "coproc": _coproc,
        **dict.fromkeys(("xargs", "gxargs"), xargs_steps),
        "parallel": parallel_steps,
        **dict.fromkeys(("find", "gfind"), _find),
        **dict.fromkeys(("fd", "fdfind"), _fd),
        **dict.fromkeys(("awk", "gawk", "mawk", "nawk", "original-awk", "goawk", "bpftrace", "stap"), awk_steps),
        **dict.fromkeys(("sed", "gsed"), sed_steps),
    }
)
