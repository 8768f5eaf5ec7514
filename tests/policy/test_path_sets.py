"""Patterns asked all at once say what each of them says alone."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.policy.commands import judge
from agent.policy.model import CommandMatch
from agent.policy.operands import Fit, normalise_operand, operand_fit, text_fit
from agent.policy.path_classes import CLASSES, HOME, WORKSPACE, Places, class_fit
from agent.policy.path_sets import any_meets, is_path
from agent.policy.paths import covers
from agent.policy.request import UNKNOWN, SimpleCommand

HOME_DIR = "/home/s"
PLACES = Places(HOME_DIR, ("/work", "/data/x"))
SEGMENT = st.sampled_from(
    ["etc", "usr", "home", "s", "work", "dev", "sda1", "a", ".env", "x.pem", "*", "?a", "[a-c]", "**"]
)
STARTS = st.sampled_from(["/", "~/", "**/", "~", "", "of=/", "of=~/"])
PATTERN = st.builds(lambda start, parts: start + "/".join(parts), STARTS, st.lists(SEGMENT, max_size=4))
NAME = st.sampled_from(
    ["etc", "usr", "home", "s", "work", "dev", "sda1", "a", "b", ".env", "x.pem", ".", "..", "", "proc", "self", "root"]
)
WORD = st.builds(
    lambda start, parts: start + "/".join(parts),
    st.sampled_from(["/", "~/", "", "of=/", "of=", "~"]),
    st.lists(NAME, max_size=5),
)
PATH = WORD.map(lambda word: normalise_operand(word, "/work/a", HOME_DIR))


@given(patterns=st.lists(PATTERN, max_size=6), path=PATH, recursive=st.booleans())
@settings(max_examples=600, deadline=None)
@example(patterns=["/etc/*/a"], path="/etc", recursive=True)
@example(patterns=[], path="/", recursive=True)
def test_a_set_of_paths(patterns: list[str], path: str, recursive: bool) -> None:
    about_paths = tuple(pattern for pattern in patterns if is_path(pattern, HOME_DIR))
    alone = [operand_fit(p, path, cwd="/", home=HOME_DIR, glob=False, recursive=recursive) for p in about_paths]
    assert any_meets(about_paths, path, home=HOME_DIR, recursive=recursive) is (Fit.YES in alone)


@given(
    patterns=st.lists(PATTERN, min_size=1, max_size=5),
    words=st.lists(st.tuples(WORD, st.sampled_from(["", UNKNOWN]), st.booleans()), min_size=1, max_size=3),
    recursive=st.booleans(),
)
@settings(max_examples=600, deadline=None)
def test_the_operands_of_a_rule(patterns: list[str], words: list[tuple[str, str, bool]], recursive: bool) -> None:
    argv = ("rm", *(["-r"] if recursive else []), "--", *(word + end for word, end, _ in words))
    first = len(argv) - len(words)
    globs = tuple(first + index for index, (_, _, glob) in enumerate(words) if glob)
    match = CommandMatch(operands=tuple(patterns), options=("recursive",) if recursive else ())
    command = SimpleCommand("rm", argv, cwd="/work/a", globs=globs)
    alone = [
        operand_fit(p, word, cwd="/work/a", home=HOME_DIR, glob=first + index in globs, recursive=recursive)
        for p in patterns
        for index, word in enumerate(argv[first:])
    ]
    assert judge(match, command, PLACES) is max(alone)


@given(patterns=st.lists(PATTERN, min_size=1, max_size=5), words=st.lists(WORD, min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
def test_the_words_of_a_rule(patterns: list[str], words: list[str]) -> None:
    alone = [text_fit(pattern, word, glob=False) for pattern in patterns for word in words]
    assert judge(CommandMatch(words=tuple(patterns)), SimpleCommand("x", ("x", *words)), PLACES) is max(alone)


@pytest.mark.parametrize("name", CLASSES)
@given(word=WORD, recursive=st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_class(name: str, word: str, recursive: bool) -> None:
    described = CLASSES[name]
    path = normalise_operand(word, "/work/a", HOME_DIR)
    trees = [
        root for tree in described.below for root in {HOME: [HOME_DIR], WORKSPACE: PLACES.workspace}.get(tree, [tree])
    ]
    globs = [
        g for glob in described.globs for g in ([f"{r}/**" for r in PLACES.workspace] if glob == WORKSPACE else [glob])
    ]

    def meets(pattern: str, recursive: bool) -> bool:
        return operand_fit(pattern, path, cwd="/", home=HOME_DIR, glob=False, recursive=recursive) is Fit.YES

    out = any(root != path and covers(root, path) for root in trees) or any(
        meets(g, False) for g in described.globs_out
    )
    expected = not out and any(meets(g, recursive) for g in globs)
    found = class_fit(name, word, cwd="/work/a", places=PLACES, glob=False, recursive=recursive)
    assert found is (Fit.YES if expected else Fit.NO)
