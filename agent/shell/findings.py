"""What one analysis has found: commands, reasons why there may be more, and the tree of how they were found.

Rules: everything is bounded, and where a bound is met the analysis says that it is incomplete; the tree decides
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.policy.request import UNKNOWN, SimpleCommand, Understood
from agent.shell.pieces import Word, unknown_of
from agent.shell.state import MAX_STEPS, Function

MAX_COMMANDS = 2000
MAX_LINES = 500
_MAX_SHOWN = 400

PLACEHOLDER = "${_parhelia_unknown}"
"""Stands in shell text for what is not known of it: a variable that has no known value."""

FORK_BOMB = "<fork-bomb>"
"""The program of a function that starts itself twice at the same time."""


class Findings:
    """Bounded, by `steps` too. `home` is the session's home directory. `calls`: the functions walked so far. `cut`: a
    bound was met, so the text goes on where nothing was looked at."""

    def __init__(self, home: str, steps: int = MAX_STEPS) -> None:
        self.home = home
        self.cut = False
        self._bound = steps
        self.commands: list[SimpleCommand] = []
        self.reasons: list[str] = []
        self.calls: set[Function] = set()
        self.lines: list[tuple[int, str, str, int | None]] = []
        self._descriptors: dict[tuple[int, int], Word] = {}
        self._contents: dict[str, Word] = {}
        self._forks: dict[tuple[Function, int], bool] = {}
        self._seen: dict[SimpleCommand, int] = {}
        self._steps = 0
        self._fresh = 0

    def add(self, command: SimpleCommand, depth: int = 0, what: str = "command", at: int | None = None) -> None:
        """Record a command; `at` is the line of the tree that it belongs to, None for the next one."""
        index = self._seen.get(command)
        if index is None:
            if len(self.commands) >= MAX_COMMANDS:
                self.cut = True
                self.unknown("the text runs too many commands to follow")
                return
            index = self._seen[command] = len(self.commands)
            self.commands.append(command)
        words = command.argv or [f"{operator} {target}" for operator, target in command.redirects]
        self.note(depth, what, " ".join(words), index, at)

    def note(self, depth: int, what: str, text: str, command: int | None = None, at: int | None = None) -> None:
        """One line of the tree."""
        if len(self.lines) < MAX_LINES:
            line = (depth, what, text[:_MAX_SHOWN], command)
            if at is None:
                self.lines.append(line)
            else:
                self.lines.insert(at, line)

    def understood(self) -> tuple[Understood, ...]:
        """The tree, in the order of the walk; a text that is not known before it runs reads ``<unknown>``."""
        lines = [Understood(depth, what, shown_line(text), index) for depth, what, text, index in self.lines]
        lines += (Understood(0, "unknown", reason) for reason in self.reasons)
        if len(self.lines) >= MAX_LINES:
            lines.append(Understood(0, "unknown", "more than fits here"))
        return tuple(lines)

    def unknown(self, reason: str) -> None:
        """Record why not everything is known."""
        if reason not in self.reasons and len(self.reasons) < 8:
            self.reasons.append(reason)

    def descriptor(self, place: tuple[int, int], content: Word) -> Word:
        """The path of a process substitution that stands at `place` and gives `content`."""
        number = (
            63 - list(self._descriptors).index(place) if place in self._descriptors else 63 - len(self._descriptors)
        )
        if number < 10:
            return unknown_of(content)
        path = f"/dev/fd/{number}"
        before = self._descriptors.get(place, content)
        self._descriptors[place] = content if before == content else unknown_of(before, content)
        self._contents[path] = self._descriptors[place]
        return Word(path, made_by=content.made_by)

    def fresh_file(self) -> Word:
        """The path that one more call of mktemp(1) makes, each its own."""
        self._fresh += 1
        return Word(f"/tmp/tmp.XXXXX{self._fresh:05}\n", made_by=("mktemp",))  # noqa: S108 - it names, it makes nothing

    def opened(self, path: str) -> Word | None:
        """What a process substitution's path gives."""
        return self._contents.get(path)

    def starts_itself(self, function: Function, place: int, *, beside: bool) -> bool:
        """Note a call of `function` from inside itself; True where that makes it a fork bomb: two such calls, one of
        them beside something else (in a pipeline, in the background)."""
        before = len(self._forks)
        self._forks[function, place] = beside
        places = [at_once for (called, _), at_once in self._forks.items() if called == function]
        return len(self._forks) > before and len(places) > 1 and any(places)

    def step(self, cost: int = 1) -> bool:
        """Count `cost` steps of work; False once there were too many."""
        self._steps += cost
        if self._steps > self._bound:
            self.cut = True
            self.unknown("the text is too large to follow")
            return False
        return True


def shown_line(text: str) -> str:
    """A line of the tree as it is shown."""
    return text[:_MAX_SHOWN].replace(PLACEHOLDER, UNKNOWN).replace(UNKNOWN, "<unknown>")


def shown_words(words: Sequence[Word]) -> str:
    """Words as one line of the tree."""
    return " ".join(word.text for word in words)
