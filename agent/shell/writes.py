"""Files that a command writes under a name that is plain from its words, and what then stands in them.

Rules: what a downloader writes is unknown text that the downloader made; what is copied keeps where it came from; a
name that is not plain is left out (the path guard and the exec ring see the file itself). Sources: curl(1), wget(1),
aria2c(1), scp(1), tee(1), cp(1), mv(1), ln(1), install(1), dd(1), openssl-enc(1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from agent.policy.request import UNKNOWN
from agent.shell.pieces import ANYTHING, Word, merged
from agent.shell.steps import basename


class Written(NamedTuple):
    """`content` now stands in the file `name` (behind what was there where `appended`)."""

    name: Word
    content: Word
    appended: bool = False


type Content = Callable[[Word], Word | None]
type _Writer = Callable[[Sequence[Word], Word | None, Content], Iterator[Written]]


def files_written(program: str, words: Sequence[Word], stdin: Word | None, content: Content) -> list[Written]:
    """What `words` (base name `program`) writes, reading `stdin`. `content`: what a file holds, where that is known."""
    writer = _WRITERS.get(program)
    return list(writer(words[1:], stdin, content)) if writer is not None else []


def _options(given: Sequence[Word], valued: str, longs: Sequence[str]) -> tuple[list[tuple[str, Word]], list[Word]]:
    """Options with their values (empty where they have none) and operands, in any order (getopt_long)."""
    options: list[tuple[str, Word]] = []
    operands: list[Word] = []
    index = 0
    while index < len(given):
        word = given[index]
        index += 1
        if not word.text.startswith("-") or word.text == "-":
            operands.append(word)
        elif word.text.startswith("--"):
            name, equals, value = word.text[2:].partition("=")
            if equals:
                options.append((name, Word(value, made_by=word.made_by)))
            else:
                takes = name in longs and index < len(given)
                options.append((name, given[index] if takes else Word("")))
                index += takes
        else:
            index = _cluster(given, index, word.text, valued, options)
    return options, operands


def _cluster(given: Sequence[Word], index: int, text: str, valued: str, options: list[tuple[str, Word]]) -> int:
    for at, letter in enumerate(text[1:], 2):
        if letter not in valued:
            options.append((letter, Word("")))
        elif at < len(text):
            options.append((letter, Word(text[at:])))
            return index
        else:
            options.append((letter, given[index] if index < len(given) else Word("")))
            return index + 1
    return index


def _named_by(url: Word) -> Word:
    """The name that a download gets from its address."""
    if not url.known:
        return ANYTHING
    path = url.text.partition("://")[2] or url.text
    return Word(basename(path.partition("?")[0].partition("#")[0]) if "/" in path else "")


def _within(directory: str, name: Word) -> Word:
    return name if not directory or name.text.startswith("/") else Word(f"{directory.rstrip('/')}/{name.text}")


def _curl(given: Sequence[Word], _stdin: Word | None, _content: Content) -> Iterator[Written]:
    longs = ("output", "output-dir", "header", "user-agent", "data", "request", "user", "proxy", "url", "referer")
    options, operands = _options(given, "AbCcdDeEFHKmoPQrTtuUwxXyYz", longs)
    body = Word(UNKNOWN, made_by=("curl",))
    directory = next((value.text for name, value in options if name == "output-dir"), "")
    for name, value in options:
        if name in ("o", "output") and value.text != "-":
            yield Written(_within(directory, value), body)
    if any(name in ("O", "remote-name", "remote-name-all", "J") for name, _ in options):
        for url in (*operands, *(value for name, value in options if name == "url")):
            yield Written(_within(directory, _named_by(url)), body)


def _wget(given: Sequence[Word], _stdin: Word | None, _content: Content) -> Iterator[Written]:
    longs = ("output-document", "directory-prefix", "header", "user-agent", "tries", "timeout", "post-data", "user")
    options, operands = _options(given, "OPaoiTtUQwBelADIXR", longs)
    body = Word(UNKNOWN, made_by=("wget",))
    named = [value for name, value in options if name in ("O", "output-document")]
    directory = next((value.text for name, value in options if name in ("P", "directory-prefix")), "")
    if named:
        yield from (Written(value, body) for value in named if value.text != "-")
        return
    for url in operands:
        name = _named_by(url)
        yield Written(_within(directory, name if name.text else Word("index.html")), body)


def _aria2c(given: Sequence[Word], _stdin: Word | None, _content: Content) -> Iterator[Written]:
    options, operands = _options(given, "odxsjkiluT", ("out", "dir"))
    body = Word(UNKNOWN, made_by=("aria2c",))
    directory = next((value.text for name, value in options if name in ("d", "dir")), "")
    named = [value for name, value in options if name in ("o", "out")]
    for name in named or [_named_by(url) for url in operands]:
        yield Written(_within(directory, name), body)


def _fetched(program: str) -> _Writer:
    """``scp host:FILE TO``, ``aws s3 cp s3://… TO``: the last operand, or the file's own name inside it."""

    def write(given: Sequence[Word], _stdin: Word | None, _content: Content) -> Iterator[Written]:
        _, operands = _options(given, "cFiJloPSXeT", ("rsh", "profile", "region"))
        body = Word(UNKNOWN, made_by=(program,))
        if len(operands) < 2 or ":" in operands[-1].text:
            return
        for source in operands[:-1]:
            if ":" in source.text:
                yield Written(operands[-1], body)
                yield Written(_within(operands[-1].text, _named_by(Word(source.text.replace(":", "/", 1)))), body)

    return write


def _tee(given: Sequence[Word], stdin: Word | None, _content: Content) -> Iterator[Written]:
    options, operands = _options(given, "", ())
    appended = any(name in ("a", "append") for name, _ in options)
    text = stdin if stdin is not None else ANYTHING
    yield from (Written(name, text._replace(made_by=merged(text.made_by, ("tee",))), appended) for name in operands)


def _copied(given: Sequence[Word], _stdin: Word | None, content: Content) -> Iterator[Written]:
    options, operands = _options(given, "tmogS", ("target-directory", "mode", "owner", "group", "suffix"))
    into = next((value for name, value in options if name in ("t", "target-directory")), None)
    sources = operands if into is not None else operands[:-1]
    target = into if into is not None else (operands[-1] if operands else Word(""))
    for source in sources:
        text = content(source)
        if text is not None:
            yield Written(target, text)
            yield Written(_within(target.text, Word(basename(source.text))), text)


def _dd(given: Sequence[Word], stdin: Word | None, content: Content) -> Iterator[Written]:
    values = dict(word.text.partition("=")[::2] for word in given)
    text = content(Word(values["if"])) if "if" in values else stdin
    if "of" in values:
        yield Written(Word(values["of"]), text if text is not None else ANYTHING)


def _out_option(program: str) -> _Writer:
    """``openssl … -out FILE``, ``gpg -o FILE``."""

    def write(given: Sequence[Word], stdin: Word | None, _content: Content) -> Iterator[Written]:
        made_by = merged(stdin.made_by if stdin is not None else (), (program,))
        for index, word in enumerate(given[:-1]):
            if word.text in ("-out", "-o", "--output"):
                yield Written(given[index + 1], Word(UNKNOWN, made_by=made_by))

    return write


def _edited(given: Sequence[Word], _stdin: Word | None, content: Content) -> Iterator[Written]:
    """``sed -i``: what stood in a file is no longer known."""
    if any(word.text.startswith(("-i", "--in-place")) for word in given):
        for word in given:
            before = content(word)
            if before is not None:
                yield Written(word, Word(UNKNOWN, made_by=merged(before.made_by, ("sed",))))


_WRITERS: Mapping[str, _Writer] = MappingProxyType(
    {
        "curl": _curl,
        "wget": _wget,
        "wget2": _wget,
        "aria2c": _aria2c,
        "scp": _fetched("scp"),
        "rsync": _fetched("rsync"),
        "aws": _fetched("aws"),
        "gsutil": _fetched("gsutil"),
        "tee": _tee,
        "cp": _copied,
        "mv": _copied,
        "ln": _copied,
        "install": _copied,
        "dd": _dd,
        "openssl": _out_option("openssl"),
        "gpg": _out_option("gpg"),
        "sed": _edited,
        "gsed": _edited,
    }
)
