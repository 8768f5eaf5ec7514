"""Known shapes of credentials: the shipped ones find what they should, and what is wrong in a file is said."""

from __future__ import annotations

import base64
import json
import secrets
import string
from pathlib import Path

import pytest

from agent.daemon.policies.store import PatternFiles
from agent.policy.load import PolicyError, load_policy
from agent.policy.patterns import Pattern, finds, load_patterns
from agent.policy.problem import Problem
from tests.policy.given import layer

DIRECTORY = Path(__file__).parents[2] / "policies" / "patterns"
LETTERS = string.ascii_letters + string.digits


def shipped() -> dict[str, Pattern]:
    found: list[Problem] = []
    patterns = load_patterns(PatternFiles(DIRECTORY), found)
    assert found == []
    return {pattern.id: pattern for pattern in patterns}


def test_the_shipped_patterns_agree_with_their_examples() -> None:
    assert len(shipped()) >= 25


def made(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))


@pytest.mark.parametrize(
    ("name", "prefix", "alphabet", "length"),
    [
        ("aws-access-key-id", "AKIA", string.ascii_uppercase + "234567", 16),
        ("github-token", "ghp_", LETTERS, 36),
        ("gitlab-token", "glpat-", LETTERS, 20),
        ("anthropic-api-key", "sk-ant-api03-", LETTERS, 95),
        ("openai-api-key", "sk-proj-", LETTERS, 64),
        ("google-api-key", "AIza", LETTERS, 35),
        ("npm-token", "npm_", LETTERS, 36),
        ("pypi-token", "pypi-AgEIcHlwaS5vcmc", LETTERS, 120),
        ("hugging-face-token", "hf_", string.ascii_letters, 34),
        ("stripe-key", "sk_live_", LETTERS, 24),
        ("digitalocean-token", "dop_v1_", "0123456789abcdef", 64),
        ("docker-hub-token", "dckr_pat_", LETTERS, 27),
        ("telegram-bot-token", "1234567890:AA", LETTERS, 33),
    ],
)
def test_a_credential_of_this_shape_is_found_wherever_it_stands(
    name: str, prefix: str, alphabet: str, length: int
) -> None:
    pattern = shipped()[name]
    token = prefix + made(alphabet, length)
    for text in (token, json.dumps({"key": token}), f"Authorization: Bearer {token}\r\n", f"x={token}&y=1"):
        assert finds(pattern, text.encode()), text
    assert not finds(pattern, token[: len(prefix) + 8].encode())


def test_a_signed_token_is_found_and_ordinary_text_is_not() -> None:
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in ({"alg": "ES256"}, {"sub": "somebody"})
    ]
    token = ".".join([*parts, made(LETTERS, 43)])
    assert finds(shipped()["json-web-token"], f"Bearer {token}".encode())
    prose = (DIRECTORY.parents[1] / "docs" / "policy.md").read_bytes() + bytes(range(256)) * 10
    assert [pattern.id for pattern in shipped().values() if finds(pattern, prose)] == []


def test_no_shape_takes_long_over_text_made_to_be_slow() -> None:
    """Each is tried on runs of every character class it could loop over; the suite's own time limit is the judge."""
    for pattern in shipped().values():
        for word in (*pattern.keywords, b"a"):
            for run in (b"a", b"A", b"0", b"-", b"eyJ", b"a.", b"\t"):
                finds(pattern, (word + run * 5_000) * 4)


PLAIN = "id: x, description: a shape, regex: 'ab[0-9]{3}', examples: {match: [ab123], no_match: [ab12]}"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("id: x", "id: X", "'X' where an id is meant"),
        ("id: x, ", "", "a pattern without 'id'"),
        ("'ab[0-9]{3}'", "'ab['", "no regular expression for bytes: unterminated character set"),
        ("'ab[0-9]{3}'", "'é[0-9]'", "no regular expression for bytes"),
        ("'ab[0-9]{3}'", "'(?:[0-9]+)+ab'", "the regular expression repeats a repetition"),
        ("'ab[0-9]{3}'", "'[0-9]*'", "the regular expression matches nothing at all"),
        ("[ab123]", "[ab]", "x does not match its example"),
        ("[ab12]", "[[ab, '1*3']]", "x matches its example"),
        ("'ab[0-9]{3}'", "'ab[0-9]{3}', keywords: [cd]", "x does not match its example"),
        ("match: [ab123], ", "", "the examples without 'match'"),
        ("id: x", "zzz: 1, id: x", "unknown key 'zzz' in a pattern"),
    ],
)
def test_a_mistake_in_a_pattern_file_is_named_with_its_place(old: str, new: str, expected: str) -> None:
    found: list[Problem] = []
    load_patterns([("p.yaml", f"version: 1\npatterns: [{{{PLAIN.replace(old, new)}}}]")], found)
    assert any(str(problem).startswith("p.yaml:2:") and expected in str(problem) for problem in found), found


def test_a_pattern_given_twice_is_a_problem() -> None:
    found: list[Problem] = []
    text = f"version: 1\npatterns: [{{{PLAIN}}}]"
    load_patterns([("a.yaml", text), ("b.yaml", text)], found)
    assert [str(problem) for problem in found] == ["b.yaml:2:12: the pattern 'x' is given twice; rename one"]


def test_patterns_are_read_only_where_a_rule_scans() -> None:
    files = [("p.yaml", f"version: 1\npatterns: [{{{PLAIN}}}]")]
    scanned = load_policy([layer("egress: {allow: [{host: x.test, scan: true}]}")], patterns=files)
    assert [pattern.id for pattern in scanned.patterns] == ["x"]
    assert load_policy([layer("egress: {allow: [x.test]}")], patterns=files).patterns == ()


def test_a_scan_without_any_pattern_is_a_problem() -> None:
    with pytest.raises(PolicyError, match=r"layer/a\.yaml:1:18: scan, but no shapes of credentials are installed"):
        load_policy([layer("egress: {allow: [{host: x.test, scan: true}]}")], patterns=[])
