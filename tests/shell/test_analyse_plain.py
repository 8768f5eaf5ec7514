"""An exec of a program that no table knows is one command, found without the walk: the same that the walk finds."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.shell import analyse
from agent.shell.analyse import Analysis, analyse_argv
from agent.shell.builtins import BUILTINS
from agent.shell.carriers_table import CARRIERS
from agent.shell.databases import PASTED_VERBS
from agent.shell.environment import rows
from agent.shell.runners import RUNNERS
from agent.shell.wrappers import LOADERS, MULTICALL, SHELLS, WRAPPERS

_KNOWN = sorted({*SHELLS, *MULTICALL, *CARRIERS, *WRAPPERS, *RUNNERS, *BUILTINS, *PASTED_VERBS, *LOADERS})
_OTHERS = ["ls", "cat", "rm", "wc", "true", "expr", "gcc", "a b", "", "/", "-", "ls.exe", "prog1.2", "x\0y", "é"]
_MORE = [
    "mktemp",
    "git",
    "python3.12",
    "perl5",
    "node",
    "find",
    "xargs",
    "sed",
    "awk",
    "su",
    "dd",
    "eval",
    "[",
    "[[",
    "test",
]
_VARIABLES = ["LD_PRELOAD", "BASH_ENV", "GIT_SSH_COMMAND", "PAGER", "PYTHONSTARTUP", "LESSOPEN", "BASH_FUNC_ls%%", "X"]

PROGRAM = st.builds(
    lambda directory, name, end: directory + name + end,
    st.sampled_from(["", "/usr/bin/", "./", "-"]),
    st.one_of(
        st.sampled_from(_KNOWN),
        st.sampled_from(_OTHERS),
        st.sampled_from(_MORE),
        st.sampled_from(_KNOWN).map(str.upper),
        st.text(max_size=6),
    ),
    st.sampled_from(["", "", "", ".exe", ".EXE", "3", "-2.1", "/"]),
)
WORD = st.one_of(
    st.sampled_from(
        ["-c", "-e", "--", "-", "rm -rf /", "$(rm x)", "`rm x`", "-i", "a=$(b)", "TABLE", "FROM", "x;", "/"]
    ),
    st.sampled_from(["*", "${_parhelia_unknown}", "\0", "--rsh=sh", "-exec", "|sh", "> f", "x" * 500, "\n"]),
    st.text(max_size=8),
)
VALUE = st.sampled_from(["", "rm x", "/tmp/f", "$(x)"])
ENVIRONMENT = st.lists(st.tuples(st.sampled_from(_VARIABLES), VALUE), max_size=2)


def _walked(
    monkeypatch: pytest.MonkeyPatch,
    argv: tuple[str, ...],
    exe: str | None,
    environment: tuple[tuple[str, str], ...],
) -> Analysis:
    with monkeypatch.context() as patch:
        patch.setattr(analyse, "may_run_more", lambda _program: True)
        analyse._names_of.cache_clear()
        try:
            return analyse_argv(argv, exe=exe, cwd="/w", home="/home/s", environment=environment)
        finally:
            analyse._names_of.cache_clear()


@given(program=PROGRAM, exe=st.one_of(st.none(), PROGRAM), words=st.lists(WORD, max_size=4), environment=ENVIRONMENT)
@settings(max_examples=1500, deadline=None)
@example(program="DROP", exe=None, words=["TABLE", "x"], environment=[])
@example(program="cat", exe="/bin/cat", words=["x"], environment=[("LESSOPEN", "|rm x")])
@example(program="/", exe=None, words=[], environment=[])
def test_what_is_found_without_the_walk(
    program: str, exe: str | None, words: list[str], environment: list[tuple[str, str]]
) -> None:
    argv = (program, *words)
    found = analyse_argv(argv, exe=exe, cwd="/w", home="/home/s", environment=tuple(environment))
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert found == _walked(monkeypatch, argv, exe, tuple(environment))


@pytest.mark.parametrize("name", ["cat", "ls", "rm", "cp", "mkdir", "expr", "cc1"])
def test_everyday_programs_are_not_walked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("walked")

    monkeypatch.setattr(analyse, "Walker", refuse)
    found = analyse_argv((name, "x"), exe=f"/usr/bin/{name}", cwd="/w", home="/home/s")
    assert [command.argv for command in found.commands] == [(name, "x")]


def test_the_variables_of_the_property_are_in_the_table() -> None:
    assert all(any(True for _ in rows(name)) for name in _VARIABLES[:-1])
    assert not any(True for _ in rows("X"))
