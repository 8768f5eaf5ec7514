"""check --jsonl: one answer a line, whatever the line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.cli.check import answer_lines
from agent.cli.questions import surroundings
from agent.daemon.policies.store import read_policy
from agent.policy.model import Policy
from tests.cli import test_check as check
from tests.cli.test_check import run

own_policy = check.own_policy


def jsonl(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *lines: str | bytes
) -> tuple[int, list[Any]]:
    data = b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    code = run("--jsonl")
    captured = capsys.readouterr()
    assert captured.err == ""
    return code, [json.loads(line) for line in captured.out.splitlines()]


def test_the_example_of_the_contract_is_answered_line_by_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, own_policy: Path
) -> None:
    code, answers = jsonl(
        capsys,
        monkeypatch,
        '{"id":"1","kind":"command","command":"rm -rf /","cwd":"/tmp/x"}',
        '{"id":"2","kind":"egress","url":"https://api.test/v1/messages","method":"POST"}',
        '{"id":"3","kind":"egress","host":"evil.test","port":443}',
        '{"id":"4","kind":"path","access":"write","path":"/etc/passwd"}',
        '{"id":"5","kind":"command","command":"eval \\"$X\\""}',
    )
    assert code == 0
    assert answers[0] == {
        "id": "1",
        "verdict": "deny",
        "rule": "tree",
        "reason": "deletes the system",
        "where": f"{own_policy}/p.yaml:11",
        "instead": "delete inside",
    }
    assert [(a["id"], a["verdict"], a["rule"]) for a in answers[1:]] == [
        ("2", "allow", "api"),
        ("3", "deny", "egress-default"),
        ("4", "deny", "paths-default"),
        ("5", "unverifiable", "commands-unverifiable"),
    ]
    assert answers[2]["where"] is None


@pytest.mark.parametrize(
    ("line", "name", "says"),
    [
        ("", None, "no JSON: Expecting value at column 1"),
        ("nonsense", None, "no JSON"),
        ('{"id":"1","kind":"command","command":"ls"', None, "no JSON"),
        ("[]", None, "must be a JSON object"),
        ("3", None, "must be a JSON object"),
        ("1" * 5000, None, "a number that is too long"),
        ('{"id":"1","kind":"path","access":"read","path":"/usr","x":NaN}', None, "NaN is no value of JSON"),
        ('{"id":"1","kind":"egress","url":"https://a.test/","method":""}', "1", "no HTTP method"),
        ("[" * 100_000, None, "nested too deeply"),
        (b'{"id":"\xff"}', None, "not UTF-8 at byte 8"),
        ('{"id":"1","id":"2","kind":"command","command":"ls"}', None, "a key is given twice"),
        ('{"id":["x"],"kind":"command","command":"ls"}', None, "id must be"),
        ('{"id":1.5,"kind":"command","command":"ls"}', None, "id must be"),
        ('{"id":"1"}', "1", "kind is missing"),
        ('{"id":7,"kind":"weather"}', 7, "kind must be one of"),
        ('{"id":"1","kind":"command"}', "1", "command is missing"),
        ('{"id":"1","kind":"command","command":5}', "1", "command must be a text"),
        ('{"id":"1","kind":"command","command":"ls","cwd":"x"}', "1", "cwd must be an absolute path"),
        ('{"id":"1","kind":"command","command":"\\ud800"}', "1", "not valid Unicode"),
        ('{"id":"1","kind":"egress"}', "1", "either url, or host and port"),
        ('{"id":"1","kind":"egress","url":"https://x.test","host":"x.test"}', "1", "either url, or host and port"),
        ('{"id":"1","kind":"egress","url":"x.test"}', "1", "is no URL"),
        ('{"id":"1","kind":"egress","url":"https://[evil.test]/"}', "1", "brackets"),
        ('{"id":"1","kind":"egress","host":"evil.test\\u0000.good.test","port":443}', "1", "control"),
        ('{"id":"1","kind":"egress","host":"x.test","port":"443"}', "1", "port must be a number"),
        ('{"id":"1","kind":"egress","host":"x.test","port":true}', "1", "port must be a number"),
        ('{"id":"1","kind":"egress","host":"x.test","port":0}', "1", "port must be a number"),
        ('{"id":"1","kind":"egress","host":"x.test","protocol":"udp"}', "1", "protocol must be one of"),
        ('{"id":"1","kind":"path","access":"fly","path":"/x"}', "1", "access must be one of"),
        ('{"id":"1","kind":"path","access":"read","path":"a\\u0000b"}', "1", "NUL"),
    ],
)
def test_a_malformed_line_is_answered_in_its_place_and_the_others_all_the_same(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str | bytes, name: object, says: str
) -> None:
    good = '{"id":"good","kind":"command","command":"ls"}'
    code, answers = jsonl(capsys, monkeypatch, good, line, good)
    assert code == 2
    assert [answer["id"] for answer in answers] == ["good", name, "good"]
    assert set(answers[1]) == {"id", "error"}
    assert says in answers[1]["error"]


def test_a_line_that_is_too_long_is_one_malformed_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = '{"id":"good","kind":"command","command":"ls"}'
    code, answers = jsonl(capsys, monkeypatch, '{"id":"x","kind":"command","command":"' + "a" * (3 << 20) + '"}', good)
    assert code == 2
    assert "longer than" in answers[0]["error"]
    assert answers[1]["id"] == "good"


def test_an_id_may_be_anything_simple_and_comes_back_as_it_was(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f'{{"id":{name},"kind":"command","command":"ls"}}' for name in ('"a\\u2028\\u001b"', "12", "null", "true")]
    code, answers = jsonl(capsys, monkeypatch, *lines, '{"kind":"command","command":"ls","extra":{"tags":[1]}}')
    assert code == 0
    assert [answer["id"] for answer in answers] == ["a\u2028\x1b", 12, None, True, None]


def test_no_input_is_fine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert jsonl(capsys, monkeypatch) == (0, [])


@pytest.fixture(scope="module")
def default() -> Policy:
    return read_policy(())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


QUESTION = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON,
        "kind": st.sampled_from(["command", "egress", "path"]) | JSON,
        "command": st.sampled_from(["ls", "rm -rf /", "mkfs x"]) | JSON,
        "cwd": st.sampled_from(["/w", "/"]) | JSON,
        "url": st.sampled_from(["https://api.test/x", "http://plain.test"]) | JSON,
        "host": st.sampled_from(["api.test", "x.test"]) | JSON,
        "port": st.sampled_from([443, 80]) | JSON,
        "method": st.sampled_from(["GET", "PUT"]) | JSON,
        "access": st.sampled_from(["read", "write"]) | JSON,
        "path": st.sampled_from(["/etc/x", "x"]) | JSON,
    },
)


@settings(max_examples=200, deadline=None)
@given(st.lists(QUESTION.map(json.dumps).map(str.encode) | st.binary(max_size=30), max_size=5))
def test_every_line_gets_exactly_one_answer_in_order(default: Policy, lines: list[bytes]) -> None:
    lines = [line.replace(b"\n", b" ") for line in lines]
    written: list[str] = []
    code = answer_lines(default, surroundings(), io.BytesIO(b"".join(line + b"\n" for line in lines)), written.append)
    answers = [json.loads(line) for line in written]
    assert len(answers) == len(lines)
    assert all("\n" not in line for line in written)
    assert code == (2 if any("error" in answer for answer in answers) else 0)
    assert all(
        ("error" in answer) != (answer.get("verdict") in ("allow", "deny", "unverifiable")) for answer in answers
    )


def test_the_program_answers_each_line_before_it_reads_the_next(own_policy: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "agent", "check", "--jsonl", "--policy", str(own_policy)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"]},
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin is not None and process.stdout is not None
    for number in range(3):
        process.stdin.write(b'{"id":%d,"kind":"egress","host":"api.test"}\n' % number)
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {
            "id": number,
            "verdict": "allow",
            "rule": "api",
            "reason": "api.test is on the allow list",
            "where": f"{own_policy}/p.yaml:4",
            "instead": "",
        }
    process.stdin.close()
    assert process.wait(timeout=60) == 0
    process.stdout.close()
