"""What is shown cannot act on a terminal or hide from a reader."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.words import LONGEST, hidden_character, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text, with ünïcödé and 漢字", "plain text, with ünïcödé and 漢字"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb", "a\\x0ab"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\U000e0041tag", "\\U000e0041tag"),
        ("\ud800", "\\ud800"),
        ("line\u2028separator", "line\\u2028separator"),
    ],
)
def test_invisible_characters_are_escaped(text: str, expected: str) -> None:
    assert shown(text) == expected


@given(st.text(max_size=400))
def test_nothing_shown_holds_an_invisible_character(text: str) -> None:
    assert hidden_character(shown(text)) is None


def test_what_is_shown_is_bounded() -> None:
    assert len(shown("x" * 10_000)) == LONGEST + 1
