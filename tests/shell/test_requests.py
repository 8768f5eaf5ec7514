"""From text and argv to a request: nothing is lost on the way, and nothing hides behind a NUL."""

from __future__ import annotations

from datetime import date

import pytest

from agent.policy.request import CommandRequest, Origin
from agent.shell.requests import from_argv, from_text

TODAY, ORIGIN = date(2026, 11, 22), Origin("test")


def text(line: str) -> CommandRequest:
    return from_text(line, cwd="/w", home="/h", today=TODAY, origin=ORIGIN, supervised=True)


@pytest.mark.parametrize("line", ["rm -rf / \0 x", "r\0m -rf /", "\0rm -rf /"])
def test_a_nul_hides_nothing_and_is_never_verifiable(line: str) -> None:
    request = text(line)
    assert request.unverifiable == "the text holds a NUL character"
    assert [(command.program, command.argv[1:3]) for command in request.commands] == [("rm", ("-rf", "/"))]
    assert request.text == line


def test_what_was_asked_travels_with_what_it_can_run() -> None:
    request = text("cd src && make 'all tests'")
    assert (request.cwd, request.home, request.supervised, request.origin) == ("/w", "/h", True, ORIGIN)
    assert [command.argv for command in request.commands][-1] == ("make", "all tests")


def test_argv_is_final_and_its_shell_text_is_read() -> None:
    request = from_argv(("sh", "-c", "rm -rf x"), exe=None, cwd="/w", home="/h", today=TODAY, origin=ORIGIN)
    assert request.text == "sh -c rm -rf x"
    assert "rm" in [command.program for command in request.commands]
