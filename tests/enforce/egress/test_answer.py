"""What a refused client reads, and that nothing of it can be turned against a terminal, a model or a parser."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.enforce.egress.answer import Answer, render_answer, visible


def split(data: bytes) -> tuple[list[bytes], bytes]:
    head, _, body = data.partition(b"\r\n\r\n")
    return head.split(b"\r\n"), body


def test_a_denial_names_rule_reason_and_what_to_do_instead() -> None:
    head, body = split(render_answer(Answer(403, "not allowed", "egress-default", "ask for it", "r1")))
    assert head[0] == b"HTTP/1.1 403 Forbidden"
    assert b"X-Parhelia-Rule: egress-default" in head
    assert b"Connection: close" in head
    assert body == b"parhelia: denied by egress-default: not allowed. ask for it\n"


def test_a_client_that_reads_json_gets_the_contract_s_keys() -> None:
    head, body = split(render_answer(Answer(403, "no", "r", "do", "id"), as_json=True))
    assert b"Content-Type: application/json" in head
    assert json.loads(body) == {
        "verdict": "deny",
        "rule": "r",
        "reason": "no",
        "instead": "do",
        "request_id": "id",
    }


def test_an_answer_to_head_has_a_length_and_no_body() -> None:
    assert render_answer(Answer(403, "no", "r"), bodiless=True).endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("ünï 文", "ünï 文"),
        ("\x1b[31m", "\\u001b[31m"),
        ("a\r\nb", "a\\u000d\\u000ab"),
        ("\u202eevil", "\\u202eevil"),
        ("\u2028", "\\u2028"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_is_not_shown_is_escaped(text: str, expected: str) -> None:
    assert visible(text) == expected


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=80), st.booleans())
def test_no_words_break_out_of_their_place(rule: str, reason: str, instead: str, as_json: bool) -> None:
    data = render_answer(Answer(403, reason, rule, instead, "id"), as_json=as_json)
    head, body = split(data)
    assert len(head) == (6 if rule else 5)
    length = next(int(line.split(b": ")[1]) for line in head if line.startswith(b"Content-Length"))
    assert length == len(body)
    assert not any(byte < 0x20 and byte != 0x0A for byte in body)
    assert body.count(b"\n") == 1
