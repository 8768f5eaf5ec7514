"""What a command hands on: an inner command, shell text, inline code; or a reason why that cannot be known.

Rules: only what the program's manual says it executes is code, everything else is data (`echo`, `grep`, a commit
message); where the program reads what it runs from a pipe whose content is unknown, that is said, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from agent.shell.batches import parallel_steps, xargs_steps
from agent.shell.escapes import awk_steps, git_steps, sed_steps, tar_steps, vim_steps
from agent.shell.finding import fd_steps, find_steps
from agent.shell.fold import Word
from agent.shell.getopt import read_options
from agent.shell.interpreters import interpreter_steps, shell_steps, su_steps
from agent.shell.steps import Inner, Opaque, ShellText, Step, split_plain, word_at
from agent.shell.wrappers import LOADERS, MULTICALL, SHELLS, WRAPPERS, Wrapper


def unwrap(program: str, words: Sequence[Word], stdin: Word | None) -> list[Step]:
    """The steps that running `words` (base name `program`) takes further. `stdin`: the text piped in, None where
    nothing is piped."""
    if program in _COMPOUND:
        return [Opaque(f"{program} stands where it is not understood here")]
    if program in SHELLS:
        return shell_steps(words, stdin)
    if program in MULTICALL:
        return [Inner(tuple(words[1:]))] if len(words) > 1 else []
    if program.startswith(LOADERS):
        return _loader(words)
    special = _SPECIAL.get(program)
    if special is not None:
        return special(words, stdin)
    wrapper = WRAPPERS.get(program)
    if wrapper is not None:
        return _wrapped(program, words, wrapper)
    return interpreter_steps(program, words, stdin)


_COMPOUND = frozenset(("for", "case", "select", "function", "[["))


def _coproc(words: Sequence[Word], _stdin: Word | None) -> list[Step]:
    """``coproc [NAME] COMMAND`` (bash(1)); a name is only taken before a compound command."""
    found: list[Step] = [Inner(tuple(words[1:]))] if len(words) > 1 else []
    if len(words) > 2 and words[2].text in ("{", "if", "while", "until", "("):
        found.append(Inner(tuple(words[2:])))
    return found


def _wrapped(program: str, words: Sequence[Word], wrapper: Wrapper) -> list[Step]:
    if program == "env":
        words = _split_string(words)
    if program == "command" and any(w.text.startswith("-") and set(w.text) & set("vV") for w in words[1:2]):
        return []
    read = read_options(words, 1, wrapper)
    if wrapper.subcommand:
        if read.end >= len(words) or words[read.end].text not in wrapper.subcommand:
            return []
        outer, read = read, read_options(words, read.end + 1, wrapper)
        read.unlisted = read.unlisted or outer.unlisted
    steps = [ShellText(value) for name, value in read.given if name in wrapper.shell_options]
    directory = next((value for name, value in read.given if name in wrapper.directory), None)
    start = read.end + wrapper.skip
    if wrapper.skip and start < len(words) and words[start].text == "--":
        start += 1
    found: list[Step] = list(steps)
    found += _inner(words[start:], wrapper, directory)
    if wrapper.skip and not steps:
        found += _shell_option_behind(words[start:], wrapper)
    if read.uncertain or (read.unlisted and not wrapper.lenient):
        found.append(Opaque(f"{program} has an option that is not known here: {read.unlisted or 'a variable'}"))
    if read.unlisted:
        operands = [i for i in range(start, len(words)) if not words[i].text.startswith("-")]
        found += [Inner(tuple(words[i:])) for i in operands[1:5]]
    return found


def _split_string(words: Sequence[Word]) -> Sequence[Word]:
    """``env -S TEXT REST``: the text becomes words in its place, options of env among them (env(1))."""
    words = [Word("-i") if word.text == "-" and index == 1 else word for index, word in enumerate(words)]
    for index, word in enumerate(words[1:], 1):
        spelled = re.fullmatch(r"(?:-[iv0]*S|--split-string=?)(.*)", word.text, re.DOTALL)
        if spelled is not None and spelled[1]:
            return [*words[:index], *split_plain(Word(spelled[1])), *words[index + 1 :]]
        if spelled is not None:
            return [*words[:index], *split_plain(word_at(words, index + 1)), *words[index + 2 :]]
        if not word.text.startswith("-") and "=" not in word.text:
            break
    return words


def _shell_option_behind(words: Sequence[Word], wrapper: Wrapper) -> list[Step]:
    """``flock FILE -c TEXT``: the option stands behind the skipped operand."""
    spelled = {f"-{name}" if len(name) == 1 else f"--{name}" for name in wrapper.shell_options}
    return [ShellText(words[1])] if len(words) > 1 and words[0].text in spelled else []


def _inner(words: Sequence[Word], wrapper: Wrapper, directory: Word | None) -> list[Step]:
    assignments: list[tuple[str, str]] = []
    index = 0
    while wrapper.assigns and index < len(words) and re.match(r"[A-Za-z_]\w*=", words[index].text):
        name, _, value = words[index].text.partition("=")
        assignments.append((name, value))
        index += 1
    rest = tuple(words[index:])
    if not rest:
        return []
    if wrapper.text:
        return [ShellText(Word(" ".join(word.text for word in rest), any(word.glob for word in rest)))]
    return [Inner(rest, directory, tuple(assignments))]


def _loader(words: Sequence[Word]) -> list[Step]:
    """ld.so(8): options of the loader, then the program."""
    index = 1
    while index < len(words) and words[index].text.startswith("--"):
        valued = ("--library-path", "--preload", "--argv0", "--audit", "--inhibit-rpath", "--glibc-hwcaps-mask")
        index += 2 if words[index].text in (*valued, "--glibc-hwcaps-prepend") else 1
    return [Inner(tuple(words[index:]))] if index < len(words) else []


def _stdin_shell(_words: Sequence[Word], stdin: Word | None) -> list[Step]:
    """at(1), batch(1): the job is read from standard input."""
    return [ShellText(stdin)] if stdin is not None else []


def _find(words: Sequence[Word], _stdin: Word | None) -> list[Step]:
    return find_steps(words)


def _fd(words: Sequence[Word], _stdin: Word | None) -> list[Step]:
    return fd_steps(words)


_SPECIAL: Mapping[str, Callable[[Sequence[Word], Word | None], list[Step]]] = MappingProxyType(
    {
        "su": su_steps,
        "coproc": _coproc,
        "xargs": xargs_steps,
        "gxargs": xargs_steps,
        "parallel": parallel_steps,
        "find": _find,
        "gfind": _find,
        "fd": _fd,
        "fdfind": _fd,
        "awk": awk_steps,
        "gawk": awk_steps,
        "mawk": awk_steps,
        "nawk": awk_steps,
        "git": git_steps,
        "tar": tar_steps,
        "gtar": tar_steps,
        "bsdtar": tar_steps,
        "sed": sed_steps,
        "gsed": sed_steps,
        "vim": vim_steps,
        "vi": vim_steps,
        "nvim": vim_steps,
        "ex": vim_steps,
        "at": _stdin_shell,
        "batch": _stdin_shell,
    }
)
