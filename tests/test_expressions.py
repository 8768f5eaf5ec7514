"""Expressions that are compiled late."""

from __future__ import annotations

import importlib
import pkgutil
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agent
from agent import expressions
from agent.expressions import expression


@given(st.sampled_from(["a+", "(a)|b", "^[ab]*$"]), st.sampled_from([0, re.IGNORECASE]), st.text("abA", max_size=6))
def test_it_finds_what_the_compiled_one_finds(pattern: str, flags: int, text: str) -> None:
    ours, theirs = expression(pattern, flags), re.compile(pattern, flags)
    for _ in range(2):
        assert ours.findall(text) == theirs.findall(text)
        assert ours.sub("-", text) == theirs.sub("-", text)
        assert (ours.match(text) is None) == (theirs.match(text) is None)
    assert (ours.pattern, ours.groups) == (theirs.pattern, theirs.groups)


def test_what_is_no_expression_is_told_at_its_first_use() -> None:
    broken = expression("(")
    with pytest.raises(re.error):
        broken.match("")


def test_every_expression_of_the_agent_can_be_compiled() -> None:
    seen = 0
    for module in pkgutil.walk_packages(agent.__path__, "agent."):
        if module.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, expressions._Late):
                assert isinstance(value.pattern, str | bytes)
                seen += 1
    assert seen > 50
