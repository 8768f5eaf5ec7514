"""xargs and parallel: a command repeated for what comes from standard input or the command line.

Rules: items that are known are put in their places; unknown ones may be any words. Sources: xargs(1), parallel(1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from agent.shell.getopt import read_options
from agent.shell.pieces import ANYTHING, Word, makers, unknown_of
from agent.shell.steps import Inner, Opaque, ShellText, Step, basename
from agent.shell.wrappers import Wrapper

MAX_ITEMS = 64

_LISTERS = frozenset(("find", "gfind", "fd", "fdfind", "locate", "plocate", "tree", "du"))
_DELETES = frozenset(("rm", "unlink"))
_XARGS = Wrapper(
    "0oprtxa:d:E:e::I:i::J:L:l::n:P:R:s:S:",
    "null arg-file= delimiter= eof replace max-lines max-args= interactive no-run-if-empty max-chars= max-procs="
    " verbose open-tty process-slot-var= exit show-limits",
)


def xargs_steps(words: Sequence[Word], stdin: Word | None) -> list[Step]:
    read = read_options(words, 1, _XARGS)
    found: list[Step] = []
    if read.unlisted or read.uncertain:
        found.append(Opaque("xargs has an option that is not known here"))
    options = dict(read.given)
    inner = tuple(words[read.end :])
    if not inner:
        return found
    from_file = "a" in options or "arg-file" in options
    items = [ANYTHING] if stdin is None or from_file else _items(stdin, options)
    if _is_of_a_tree(inner, items, stdin):
        inner = (inner[0], Word("-r"), *inner[1:])  # once for everything that is found is the whole tree
    marker = options.get("I") or options.get("J")
    if marker is None and any(re.match(r"-\w*i|--replace", w.text) for w in words[1 : read.end]):
        spelled = next(w.text for w in words[1 : read.end] if re.match(r"-\w*i|--replace", w.text))
        marker = Word(spelled.partition("=")[2] or (spelled[2:] if spelled.startswith("-i") else "") or "{}")
    if marker is None or not marker.text:
        return [*found, Inner((*inner, *items))]
    return [*found, *(Inner(_replaced(inner, marker.text, item)) for item in items)]


def _is_of_a_tree(inner: Sequence[Word], items: Sequence[Word], stdin: Word | None) -> bool:
    """Are the items what find(1) writes, as it was given, and deleted?"""
    listed = stdin is not None and not _LISTERS.isdisjoint(stdin.made_by)
    return listed and basename(inner[0].text) in _DELETES and all(item.known for item in items)


def _items(stdin: Word, options: Mapping[str, Word]) -> list[Word]:
    if not stdin.known:
        return [unknown_of(stdin)]
    delimiter = options.get("d") or options.get("delimiter")
    pattern = r"[\0\n]" if "0" in options or "null" in options or "I" in options else r"\s+"
    if delimiter is not None:
        pattern = re.escape({"\\n": "\n", "\\t": "\t", "\\0": "\0"}.get(delimiter.text, delimiter.text[:1])) + r"|\n"
    parts = [part for part in re.split(pattern, stdin.text) if part]
    if len(parts) > MAX_ITEMS or any(char in stdin.text for char in "'\"\\"):
        return [unknown_of(stdin)]
    return [Word(part, stdin.glob, stdin.made_by) for part in parts]


def _replaced(words: Sequence[Word], marker: str, item: Word) -> tuple[Word, ...]:
    return tuple(_with_item(word, marker, item) if marker in word.text else word for word in words)


def _with_item(word: Word, marker: str, item: Word) -> Word:
    return Word(word.text.replace(marker, item.text), word.glob or item.glob, makers((word, item)))


_PARALLEL = Wrapper(
    "j:a:I:n:N:L:S:s:P:d:C:E:kmqrtuvXx0",
    "jobs= arg-file= colsep= max-args= max-replace-args= sshlogin= joblog= results= timeout= delay= retries= halt="
    " tmpdir= workdir= wd= env= tagstring= block= recstart= recend= load= memfree= nice= delimiter= basefile= return="
    " dry-run dryrun keep-order bar eta progress tag line-buffer lb ungroup group verbose quote xargs pipe"
    " no-run-if-empty null will-cite version help link shuf max-procs= transfer cleanup",
    lenient=True,
)


_PLACEHOLDER = re.compile(r"\{(?:\d*[./]{0,2}|#|%)\}")


def parallel_steps(words: Sequence[Word], stdin: Word | None) -> list[Step]:
    """GNU parallel(1): command words, then ``:::`` and arguments, or arguments from standard input."""
    read = read_options(words, 1, _PARALLEL)
    rest = list(words[read.end :])
    cut = next((i for i, w in enumerate(rest) if re.fullmatch(r":::\+?|::::\+?", w.text)), len(rest))
    command, arguments = rest[:cut], [w for w in rest[cut + 1 :] if not w.text.startswith(":::")]
    if cut == len(rest):
        arguments = _items(stdin, {"d": Word("\n")}) if stdin is not None else [ANYTHING]
    elif rest[cut].text.startswith("::::"):
        arguments = [ANYTHING]
    if _runs_nothing(read.given, command):
        return []
    found: list[Step] = []
    for argument in arguments[:MAX_ITEMS]:
        text = " ".join(word.text for word in command)
        quoted = argument.text if argument.glob or not argument.known else _quoted(argument.text)
        parts = _PLACEHOLDER.split(text)
        if not command:
            found.append(ShellText(argument))
        else:
            whole = quoted.join(parts) if len(parts) > 1 else f"{text} {quoted}"
            found.append(ShellText(Word(whole, made_by=makers((*command, argument)))))
            if any(re.search(r"[\s'\"();|&]", word.text) for word in command[1:]):  # as -q joins them
                found.append(Inner((*_replaced(command, "{}", argument), argument)))
    return found


def _runs_nothing(given: Sequence[tuple[str, Word]], command: Sequence[Word]) -> bool:
    names = {name for name, _ in given}
    return not names.isdisjoint(("dry-run", "dryrun")) or (not command and not names.isdisjoint(("version", "help")))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
