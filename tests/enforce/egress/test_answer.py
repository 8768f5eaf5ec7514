"""What a refused client reads, and that nothing of it can be turned against a terminal, a model or a parser."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.enforce.egress.answer import Answer, Form, render_answer, visible

PAGE_TAGS = {"!doctype html", 'html lang="en"', "head", 'meta charset="utf-8"', "title", "/title", "style", "/style"}
PAGE_TAGS |= {"/head", "body", "h1", "/h1", "p", "/p", "/body", "/html"}


def split(data: bytes) -> tuple[list[bytes], bytes]:
    head, _, body = data.partition(b"\r\n\r\n")
    return head.split(b"\r\n"), body


def test_a_denial_names_rule_reason_and_what_to_do_instead() -> None:
    head, body = split(render_answer(Answer(403, "not allowed", "egress-default", "ask for it", "r1")))
    assert head[0] == b"HTTP/1.1 403 Forbidden by parhelia: egress-default: not allowed"
    assert b"X-Parhelia-Rule: egress-default" in head
    assert b"X-Parhelia-Reason: not allowed" in head
    assert b"Connection: close" in head
    assert body == b"parhelia: denied by egress-default: not allowed. ask for it\n"


def test_what_no_rule_refused_keeps_its_plain_status_and_has_its_reason() -> None:
    head, _ = split(render_answer(Answer(502, "it is down")))
    assert head[0] == b"HTTP/1.1 502 Bad Gateway"
    assert b"X-Parhelia-Reason: it is down" in head


def test_a_long_reason_is_cut_in_the_head_and_whole_in_the_body() -> None:
    head, body = split(render_answer(Answer(403, "x" * 4000, "r")))
    assert [len(line) < 600 for line in head] == [True] * len(head)
    assert head[0].endswith(b"...")
    assert b"x" * 4000 in body


def test_a_client_that_reads_json_gets_the_contract_s_keys() -> None:
    head, body = split(render_answer(Answer(403, "no", "r", "do", "id"), form=Form.JSON))
    assert b"Content-Type: application/json" in head
    assert json.loads(body) == {
        "verdict": "deny",
        "rule": "r",
        "reason": "no",
        "instead": "do",
        "request_id": "id",
    }


def test_a_browser_gets_a_short_page() -> None:
    head, body = split(render_answer(Answer(403, "<b>no</b>", "r&d", "do", "id"), form=Form.HTML))
    assert b"Content-Type: text/html; charset=utf-8" in head
    assert b"<h1>Denied by r&amp;d</h1><p>&lt;b&gt;no&lt;/b&gt;</p><p>do</p><p>Request id</p>" in body


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ([], Form.TEXT),
        (["*/*"], Form.TEXT),
        (["text/plain, text/html"], Form.TEXT),
        (["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], Form.HTML),
        (["application/json"], Form.JSON),
        (["Application/JSON; charset=utf-8"], Form.JSON),
        (["application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*"], Form.JSON),
        (["text/html, application/vnd.pypi.simple.v1+json;q=0.5"], Form.JSON),
        (["text/html", "application/json"], Form.JSON),
        (["application/json;q=0"], Form.TEXT),
        (["application/json; q=0.000, text/html"], Form.HTML),
        (["application/jsonp"], Form.TEXT),
    ],
)
def test_the_form_follows_what_the_client_names(accept: list[str], form: Form) -> None:
    assert Form.wanted(accept) is form


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


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=80), st.sampled_from(Form))
def test_no_words_break_out_of_their_place(rule: str, reason: str, instead: str, form: Form) -> None:
    data = render_answer(Answer(403, reason, rule, instead, "id"), form=form)
    head, body = split(data)
    assert len(head) == 6 + bool(rule) + bool(reason.strip(" "))
    assert all(0x20 <= byte <= 0x7E for line in head for byte in line)
    length = next(int(line.split(b": ")[1]) for line in head if line.startswith(b"Content-Length"))
    assert length == len(body)
    assert not any(byte < 0x20 and byte != 0x0A for byte in body)
    assert body.count(b"\n") == 1
    if form is Form.HTML:
        assert set(re.findall(r"<([^>]*)>", body.decode())) <= PAGE_TAGS


@given(st.lists(st.text(max_size=60), max_size=3))
def test_no_accept_header_breaks_the_choice(accept: list[str]) -> None:
    assert Form.wanted(accept) in Form
