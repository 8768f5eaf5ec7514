"""Programs that run something, or read or write a file, because one of their options or operands says so.

Rules: what is run is data in a table (`agent.shell.carriers_table`), never code of its own; an option that the table
does not name is stepped over; an abbreviated long option is the option (getopt_long(3)).

A row has one entry a line: the spellings of an option, what its value is, a pattern that the value must fit (its
group, or what follows it, is the payload). In the place of a spelling: ``operand`` an operand, ``first`` the first one,
``stdin`` standard input, ``alone`` standard input where nothing else says what to run, ``default`` the files that the
pattern names where nothing else does. ``valued LETTERS NAMES`` lists other options with a value; ``bundled``: letters
may stand without a dash; ``apart``: each letter has its own. Kinds of a value:

``text`` a shell reads it; ``words`` it is split into a command; ``program`` it is a command's name; ``rest`` begins a
command that ends with the command line; ``rest-text`` the same as shell text; ``code:LANGUAGE`` inline code;
``says:DIALECT`` commands of a program's own (`agent.shell.dialects`); ``file:DIALECT`` the same in a file, and
``script:LANGUAGE`` code in a file; ``reads`` and ``writes`` a file; ``deletes`` the operands are deleted afterwards;
``loads`` code that cannot be looked into; ``network`` as ``text``, with a connection at its ends.

Source: the programs' manual pages; the doors to a shell are those that GTFOBins names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from agent.policy.request import UNKNOWN
from agent.shell.dialects import says
from agent.shell.pieces import Word
from agent.shell.steps import (
    REVERSE_SHELL,
    Code,
    Inner,
    Opaque,
    Script,
    ShellText,
    Step,
    Touches,
    basename,
    joined,
    reads_descriptor,
    split_plain,
    word_at,
)
from agent.values import dataclass, field

_SHORTEST_ABBREVIATION = 4  # "--xx"


@dataclass(frozen=True, slots=True)
class Payload:
    """What the value of an option is, and the pattern that it must fit."""

    kind: str
    pattern: re.Pattern[str] | None = None


@dataclass(frozen=True, slots=True)
class Carrier:
    """The entries of one row, by where the payload stands."""

    letters: Mapping[str, tuple[Payload, ...]]
    longs: Mapping[str, tuple[Payload, ...]]
    operands: tuple[Payload, ...]
    first: tuple[Payload, ...]
    stdin: tuple[Payload, ...]
    alone: tuple[Payload, ...]
    default: tuple[Payload, ...]
    valued: frozenset[str]
    singles: tuple[str, ...]  # names with one dash, whose value may be attached
    bundled: bool
    apart: bool


@dataclass(slots=True)
class _Draft:
    letters: dict[str, list[Payload]] = field(default_factory=dict)
    longs: dict[str, list[Payload]] = field(default_factory=dict)
    places: dict[str, list[Payload]] = field(default_factory=dict)
    valued: set[str] = field(default_factory=set)
    bundled: bool = False
    apart: bool = False


class Table(Mapping[str, Carrier]):
    """The rows of a table: ``name name:`` at the margin, entries indented; a name may stand in several rows. Each is
    read when it is first asked for. Raises ValueError then for what is no entry."""

    def __init__(self, *texts: str) -> None:
        self._entries: dict[str, list[str]] = {}
        self._read: dict[str, Carrier] = {}
        names: list[str] = []
        for line in "\n".join(texts).splitlines():
            if line[:1].strip():
                names = line.rstrip(":").split()
            elif line:
                for name in names:
                    self._entries.setdefault(name, []).append(line)

    def __getitem__(self, name: str) -> Carrier:
        if name not in self._read:
            draft = _Draft()
            for entry in self._entries[name]:
                _read_entry(entry.split(), draft)
            self._read[name] = _carrier(draft)
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _read_entry(parts: Sequence[str], draft: _Draft) -> None:
    if parts in (["bundled"], ["apart"]):
        draft.bundled |= parts == ["bundled"]
        draft.apart |= parts == ["apart"]
        return
    if parts[0] == "valued":
        for part in parts[1:]:
            draft.valued |= {part} if part.startswith("-") else set(part)
        return
    at = next((i for i, part in enumerate(parts) if i and part.partition(":")[0] in KINDS), None)
    if at is None or len(parts) > at + 2:
        raise ValueError(f"not an entry of a carrier: {' '.join(parts)}")
    payload = Payload(parts[at], re.compile(parts[at + 1], re.DOTALL | re.IGNORECASE) if len(parts) > at + 1 else None)
    for spelling in parts[:at]:
        if spelling in PLACES:
            draft.places.setdefault(spelling, []).append(payload)
        elif len(spelling) == len("-x") and spelling[0] == "-":
            draft.letters.setdefault(spelling[1], []).append(payload)
        elif spelling[0] in "-+":
            draft.longs.setdefault(spelling, []).append(payload)
        else:
            raise ValueError(f"not a spelling of an option: {spelling}")


def _carrier(draft: _Draft) -> Carrier:
    def frozen(found: Mapping[str, list[Payload]]) -> dict[str, tuple[Payload, ...]]:
        return {name: tuple(payloads) for name, payloads in found.items()}

    places = frozen(draft.places)
    return Carrier(
        frozen(draft.letters),
        frozen(draft.longs),
        places.get("operand", ()),
        places.get("first", ()),
        places.get("stdin", ()),
        places.get("alone", ()),
        places.get("default", ()),
        frozenset(draft.valued),
        tuple(name for name in draft.longs if not name.startswith("--")),
        draft.bundled,
        draft.apart,
    )


def carried_steps(
    words: Sequence[Word], stdin: Word | None, carrier: Carrier, *, from_file: bool = False
) -> list[Step]:
    """What `words` carry, options anywhere among the operands. `from_file`: what is not known of `stdin` is the content
    of a file, which is not read."""
    reading = _Reading(_unbundled(words, carrier) if carrier.bundled else words, carrier, stdin)
    reading.read()
    if not reading.told:
        for payload in carrier.default:
            for name in payload.pattern.pattern.split("|") if payload.pattern is not None else ():
                reading.take(Payload(payload.kind), Word(name), len(words))
    if stdin is None or (from_file and not stdin.known):
        return reading.found
    if stdin.known or not reading.told:
        reading.take_all(carrier.stdin, stdin)
    if not reading.told and all(word.text == "-" or reads_descriptor(word.text) for word in reading.operands):
        reading.take_all(carrier.alone, stdin)
    return reading.found


def _unbundled(words: Sequence[Word], carrier: Carrier) -> list[Word]:
    """``tar cIf PROGRAM FILE``: letters without a dash, their values behind them in order (tar(1), "Option styles")."""
    first = word_at(words, 1).text
    if not re.fullmatch(r"[A-Za-z]+", first):
        return list(words)
    found, index = [words[0]], 2
    for letter in first:
        found.append(Word(f"-{letter}"))
        if letter in carrier.valued or letter in carrier.letters:
            found.append(word_at(words, index))
            index += 1
    return [*found, *words[index:]]


class _Reading:
    """One pass over a command line."""

    def __init__(self, words: Sequence[Word], carrier: Carrier, stdin: Word | None) -> None:
        self.words = words
        self.stdin = stdin
        self.carrier = carrier
        self.found: list[Step] = []
        self.operands: list[Word] = []
        self.told = False  # an option or operand says what to run
        self._deletes = False
        self._ended = False

    def read(self) -> None:
        index, options = 1, True
        while index < len(self.words):
            text = self.words[index].text
            if self._ended:
                return
            if options and text == "--":
                options = False
                index += 1
            elif options and text[:1] in ("-", "+") and len(text) > 1:
                index = self._option(index, text)
            else:
                self._operand(index)
                index += 1
        if self._deletes:
            self.found.append(Inner((Word("rm"), Word("-rf"), Word("--"), *(self.operands or (Word(UNKNOWN),)))))

    def _option(self, index: int, text: str) -> int:
        """Read the option at `index`; where the next word begins."""
        name, equals, value = text.partition("=")
        payloads = self._named(name)
        if payloads is not None:
            given = self.words[index]._replace(text=value) if equals else word_at(self.words, index + 1)
            for payload in payloads:
                self.take(payload, given, index if equals else index + 1)
            return index + (1 if equals or payloads[0].kind == "deletes" else 2)
        attached = next((single for single in self.carrier.singles if text.startswith(single)), None)
        if attached is not None:
            given = self.words[index]._replace(text=text[len(attached) :])
            for payload in self.carrier.longs[attached]:
                self.take(payload, given, index)
            return index + 1
        if text.startswith("-") and not text.startswith("--"):
            return self._letters(index, text)
        return index + 1 + (not equals and name in self.carrier.valued)

    def _named(self, name: str) -> tuple[Payload, ...] | None:
        longs = self.carrier.longs
        if name in longs:
            return longs[name]
        if name.startswith("--") and len(name) >= _SHORTEST_ABBREVIATION and name not in self.carrier.valued:
            return next((payloads for known, payloads in longs.items() if known.startswith(name)), None)
        return None

    def _letters(self, index: int, text: str) -> int:
        for at, letter in enumerate(text[1:2] if self.carrier.apart else text[1:], 2):
            payloads = self.carrier.letters.get(letter)
            if payloads is None and letter not in self.carrier.valued:
                continue
            attached = at < len(text)
            given = self.words[index]._replace(text=text[at:]) if attached else word_at(self.words, index + 1)
            for payload in payloads or ():
                self.take(payload, given, index if attached else index + 1)
            return index + 1 if attached or (payloads and payloads[0].kind == "deletes") else index + 2
        return index + 1

    def _operand(self, index: int) -> None:
        word = self.words[index]
        if not self.operands:
            for payload in self.carrier.first:
                self.take(payload, word, index)
        self.operands.append(word)
        for payload in self.carrier.operands:
            self.take(payload, word, index)

    def take_all(self, payloads: Sequence[Payload], value: Word) -> None:
        for payload in payloads:
            self.take(payload, value, len(self.words))

    def take(self, payload: Payload, value: Word, index: int) -> None:
        """Note what `value`, which stands at `index`, is."""
        if payload.pattern is not None:
            fits = payload.pattern.match(value.text)
            if fits is None:
                return
            value = value._replace(text=fits[1] if payload.pattern.groups else value.text[fits.end() :])
        if payload.kind == "deletes":
            self._deletes = True
            return
        if not value.text:
            return
        kind, _, detail = payload.kind.partition(":")
        self._ended |= kind.startswith("rest")
        self.told |= kind in ("code", "says", "file", "script") or self._ended
        self.found += self._steps(kind, detail, value, index)

    def _steps(self, kind: str, detail: str, value: Word, index: int) -> list[Step]:
        match kind:
            case "text":
                return [ShellText(value)]
            case "words":
                return [Inner(tuple(split_plain(value)))]
            case "program":
                return [Inner((value,))]
            case "rest":
                return [Inner((value, *self.words[index + 1 :]))]
            case "rest-text":
                return [ShellText(joined((value, *self.words[index + 1 :])))]
            case "code":
                return [Code(detail, value)]
            case "says":
                return says(detail, value)
            case "file" if value.text == "-":
                return says(detail, self.stdin) if self.stdin is not None else []
            case "script" if value.text == "-":
                return [Code(detail, self.stdin)] if self.stdin is not None else []
            case "file" | "script":
                return [Script(detail, value, tuple(self.words[index + 1 :]))]
            case "reads" | "writes":
                return [Touches("<" if kind == "reads" else ">", value)] if value.text != "-" else []
            case "network":
                return [Inner((REVERSE_SHELL, Word(basename(self.words[0].text)))), ShellText(value)]
        return [Opaque(f"{basename(self.words[0].text)} loads {value.text.replace(UNKNOWN, '…')}, which is not read")]


PLACES = frozenset(("operand", "first", "stdin", "alone", "default"))
"""Where a payload can stand, besides behind an option."""

KINDS = frozenset(
    [
        *(
            "text",
            "words",
            "program",
            "rest",
            "rest-text",
            "code",
            "says",
            "file",
            "script",
            "reads",
            "writes",
            "deletes",
        ),
        *("loads", "network"),
    ]
)
"""What a value can be."""
