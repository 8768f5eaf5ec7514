"""What travels: a question in any pieces, long strings dropped and nothing else, and bounds that hold."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.enforce.commands.hook_wire import (
    HEAD,
    MAX_KEPT,
    MAX_PAYLOAD,
    MAX_SHELL,
    MAX_STRING,
    Intake,
    WireError,
    encode_answer,
    shell_question,
)

LONGEST = 12
texts = st.text(st.sampled_from('ab"\\\n\t\u00e9\u2028{}[]:,\U0001f600'), max_size=20)
short = st.text(st.sampled_from("abc"), max_size=3)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(short, inner, max_size=4),
)


def taken(data: bytes, *cuts: int, longest: int = MAX_STRING) -> Intake:
    intake, start = Intake(longest), 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        intake.feed(data[start:cut])
        start = cut
    return intake


def expected(value: object) -> object:
    match value:
        case str():
            return None if len(json.dumps(value).encode()) > LONGEST else value
        case list():
            return [expected(one) for one in value]
        case dict():
            return {key: expected(one) for key, one in value.items()}
        case _:
            return value


@given(values, st.lists(st.integers(0, 500), max_size=6), st.sampled_from([None, 2]))
def test_in_whatever_pieces_it_comes_only_long_strings_are_lost(
    value: object, cuts: list[int], indent: int | None
) -> None:
    text = json.dumps(value, indent=indent)
    intake = taken(HEAD + b"claude-code\n" + text.encode(), *cuts, longest=LONGEST)
    assert intake.protocol == "claude-code"
    assert json.loads(intake.payload()) == expected(value)


@given(st.binary(max_size=60), st.lists(st.integers(0, 500), max_size=6))
def test_other_bytes_are_kept_as_they_are_while_no_string_is_long(data: bytes, cuts: list[int]) -> None:
    assert taken(HEAD + b"x\n" + data, *cuts, longest=100).payload() == data


@given(st.binary(max_size=60), st.lists(st.integers(0, 500), max_size=6))
def test_what_a_shell_asks_is_never_shortened(data: bytes, cuts: list[int]) -> None:
    assert taken(HEAD + b"shell\n" + data, *cuts, longest=1).payload() == data


@pytest.mark.parametrize("data", [b"", b"parhelia", HEAD, b"parhelia-hook 2 shell\n", b"{}", HEAD + b"x" * 100])
def test_what_is_no_question_of_this_version_is_refused(data: bytes) -> None:
    with pytest.raises(WireError, match="no protocol of this version"):
        taken(data).payload()


def test_what_is_kept_is_bounded_and_so_is_what_arrives() -> None:
    intake = Intake()
    intake.feed(HEAD + b'cursor\n["')
    for _ in range(MAX_PAYLOAD // 65536 - 1):
        intake.feed(b"x" * 65536)
    intake.feed(b'"]')
    assert intake.payload() == b"[null]"
    with pytest.raises(WireError, match="larger than"):
        intake.feed(b" " * (2 * 65536))
    with pytest.raises(WireError, match="would have to be read"):
        taken(HEAD + b"cursor\n" + b"{}," * MAX_KEPT)
    with pytest.raises(WireError, match="would have to be read"):
        taken(HEAD + b"shell\n" + b"x" * (MAX_SHELL + 1))


def test_an_answer_is_spelled_as_the_module_says() -> None:
    assert encode_answer(True, "{}\n", "") == b"PH\1\0\0\0\0\3\0\0\0\0{}\n"
    assert encode_answer(False, "", "\udc80é") == b"PH\1\2\0\0\0\0\0\0\0\3?\xc3\xa9"


@pytest.mark.parametrize("payload", [b"", b"/\0", b"/\0sh", b"tmp\0sh\0", b"\0sh\0"])
def test_a_shells_question_without_directory_or_program_is_none(payload: bytes) -> None:
    with pytest.raises(WireError, match="no directory"):
        shell_question(payload)


def test_a_shells_question_is_its_directory_and_its_arguments() -> None:
    assert shell_question(b"/w\0/bin/sh\0-c\0\xff\0\0") == ("/w", ("/bin/sh", "-c", "\udcff", ""))
