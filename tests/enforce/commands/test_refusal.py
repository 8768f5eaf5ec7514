"""The line that a refused command leaves, and to whom it is not written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.enforce.commands import refusal
from agent.enforce.commands.refusal import Given, refusal_line, tell
from agent.linux.process import FilesystemIdentity
from agent.policy.decision import Decision, Severity, Verdict

DECISION = Decision(
    verdict=Verdict.DENY, rule="r", reason="for \x1b[2J", instead="", policy_digest="", severity=Severity.HIGH
)
LINE = refusal_line(DECISION) + "\n"
EYES = FilesystemIdentity(None, None)


@contextlib.contextmanager
def standard_error() -> Iterator[list[int]]:
    """This process's own is a pipe meanwhile, whose both ends are given."""
    kept = os.dup(2)
    read, write = os.pipe()
    os.dup2(write, 2)
    os.set_blocking(read, False)
    try:
        yield [read, write]
    finally:
        os.dup2(kept, 2)
    for descriptor in (kept, read, write):
        os.close(descriptor)


def told(read: int) -> str:
    try:
        return os.read(read, 1 << 16).decode()
    except BlockingIOError:
        return ""


def without_inode(monkeypatch: pytest.MonkeyPatch) -> None:
    """As gVisor has it, and Linux before 5.14."""
    monkeypatch.setattr(refusal, "_fdinfo", lambda process, descriptor: {b"flags": b"01"})


def test_the_line_is_escaped_and_written() -> None:
    with standard_error() as stderr:
        assert tell(os.getpid(), DECISION, EYES)
        assert told(stderr[0]) == LINE == "parhelia: denied by r: for \\x1b[2J.\n"


def test_what_is_open_for_reading_only_gets_nothing(tmp_path: Path) -> None:
    with standard_error():
        (tmp_path / "file").write_text("before")
        os.dup2(os.open(tmp_path / "file", os.O_RDONLY), 2)
        assert not tell(os.getpid(), DECISION, EYES)
        assert (tmp_path / "file").read_text() == "before"


def test_a_full_pipe_loses_the_line() -> None:
    with standard_error() as stderr:
        os.set_blocking(stderr[1], False)
        with pytest.raises(BlockingIOError):
            while True:
                os.write(stderr[1], b"x" * 4096)
        assert not tell(os.getpid(), DECISION, EYES)


def test_where_nobody_says_which_file_it_is_only_the_one_that_was_given_is_written_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with standard_error() as stderr:
        without_inode(monkeypatch)
        assert not tell(os.getpid(), DECISION, EYES)
        read, other = os.pipe()
        assert not tell(os.getpid(), DECISION, EYES, Given.of(other))
        assert told(stderr[0]) == ""
        assert tell(os.getpid(), DECISION, EYES, Given.of(2))
        assert told(stderr[0]) == LINE
        os.close(read)
        os.close(other)


def test_a_file_that_was_given_is_written_to_at_its_own_position(tmp_path: Path) -> None:
    with standard_error():
        opened = os.open(tmp_path / "words", os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(opened, 2)
        os.write(2, b"before\n")
        assert tell(os.getpid(), DECISION, EYES, Given.of(2))
        os.write(2, b"after\n")
        assert (tmp_path / "words").read_text() == f"before\n{LINE}after\n"
        os.close(opened)


def test_nothing_but_a_regular_file_is_kept_open(tmp_path: Path) -> None:
    with standard_error():
        assert Given.of(2).copy is None
        with (tmp_path / "words").open("w") as words:
            copy = Given.of(words.fileno()).copy
        assert copy is not None
        os.close(copy)
