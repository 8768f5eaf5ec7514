"""What is remembered of short code is what reading it says; code that is too deep gives what stands before that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.shell import code
from agent.shell.code import calls_in, calls_of
from agent.shell.code_calls import Call, RunsText

CODES = ["import os; os.system('rm x')", '{ system("rm x") }', "", "x" * 4000 + ";import os; os.system('rm x')"]


@pytest.mark.parametrize("language", ["python", "awk", "perl", "tcl"])
@pytest.mark.parametrize("text", CODES)
@pytest.mark.parametrize("body", [False, True])
def test_the_same_again(text: str, language: str, body: bool) -> None:
    said = list(calls_in(text, language, body=body))
    assert list(calls_of(text, language, body=body)) == said
    assert list(calls_of(text, language, body=body)) == said


def test_code_that_is_too_deep(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_deep(_code: str, _language: str, *, body: bool = False) -> Iterator[Call]:
        yield RunsText("rm x")
        raise RecursionError

    monkeypatch.setattr(code, "calls_in", too_deep)
    found = iter(calls_of("too deep", "python"))
    assert next(found) == RunsText("rm x")
    with pytest.raises(RecursionError):
        next(found)
