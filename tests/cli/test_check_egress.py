"""`check egress` and `policy explain` on conditions, limits, credentials and secrets."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from agent.cli.main import main


def run(*arguments: str) -> int:
    return main(["check", *arguments])


TERMS = """\
egress:
  allow:
    - {id: versioned, host: v.test, headers: {api-version: '2*'}, limits: {body: 1KB, idle: 1m}, scan: true}
    - {id: asked, host: q.test, query: {a: '1'}, credential: {secret: key, only: true}}
    - {id: hub, host: git.test, git: {fetch: ['a/*']}}
    - {id: pinned, host: p.test, tls: passthrough}
secrets: [{name: key, from: {file: /run/hidden/place}, hosts: [q.test], header: x-key, as: {env: KEY}}]
"""


@pytest.fixture
def terms_policy(tmp_path: Path) -> str:
    (tmp_path / "terms").mkdir()
    (tmp_path / "terms" / "p.yaml").write_text(TERMS)
    return str(tmp_path / "terms")


@pytest.mark.parametrize(
    ("arguments", "code", "rule"),
    [
        (["https://v.test/", "--header", "Api-Version: 2023"], 0, "versioned"),
        (["https://v.test/", "--header", "Api-Version: 1"], 3, "egress-default"),
        (["https://v.test/", "--header", "Api-Version: 2", "--header", "api-version: 1"], 3, "egress-default"),
        (["https://v.test/"], 3, "egress-default"),
        (["v.test"], 0, "versioned"),
        (["https://q.test/?a=1"], 0, "asked"),
        (["https://q.test/?a=2"], 3, "egress-default"),
        (["https://git.test/a/b.git/info/refs?service=git-upload-pack"], 0, "hub"),
        (["https://git.test/a/b.git/git-receive-pack", "--method", "POST"], 3, "egress-default"),
    ],
)
def test_a_request_is_asked_with_its_query_and_header_fields(
    capsys: pytest.CaptureFixture[str], terms_policy: str, arguments: list[str], code: int, rule: str
) -> None:
    assert run("--policy", terms_policy, "egress", *arguments) == code
    assert f": {rule}" in capsys.readouterr().err.splitlines()[0]


def test_what_an_allowed_request_is_bound_to_is_said(capsys: pytest.CaptureFixture[str], terms_policy: str) -> None:
    run("--policy", terms_policy, "egress", "v.test")
    text = capsys.readouterr().err
    assert "  limits: body 1000 bytes, idle 60 s\n  uploads are searched for credentials\n" in text
    run("--policy", terms_policy, "egress", "q.test")
    assert "  credential key and no other\n" in capsys.readouterr().err
    run("--policy", terms_policy, "egress", "p.test")
    assert "  its TLS is never intercepted\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ('{"url": "https://v.test/", "headers": {"Api-Version": "2"}}', '"verdict": "allow"'),
        ('{"url": "https://v.test/", "headers": {"Api-Version": ["2", "1"]}}', '"verdict": "deny"'),
        ('{"host": "q.test", "path": "/?a=1"}', '"verdict": "allow"'),
        ('{"host": "q.test", "path": "/?a=2"}', '"verdict": "deny"'),
        ('{"url": "https://v.test/", "headers": []}', "headers must be an object"),
        ('{"url": "https://v.test/", "headers": {"a": 1}}', "must be a text, or a list of texts"),
        ('{"url": "https://v.test/", "headers": {"a b": "c"}}', "is no header field"),
    ],
)
def test_a_line_may_name_header_fields(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    terms_policy: str,
    question: str,
    answer: str,
) -> None:
    line = question.replace("{", '{"id": "1", "kind": "egress", ', 1).encode() + b"\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(line)))
    run("--policy", terms_policy, "--jsonl")
    assert answer in capsys.readouterr().out


def test_explain_shows_terms_and_secrets_and_never_where_a_value_lies(
    capsys: pytest.CaptureFixture[str], terms_policy: str
) -> None:
    for extra in ([], ["--json"]):
        assert main(["policy", "explain", "--policy", terms_policy, *extra]) == 0
        captured = capsys.readouterr()
        text = captured.err + captured.out
        for part in (
            "v.test 443 tls header api-version: 2* uploads scanned (body 1000 bytes, idle 60 s)",
            "q.test 443 tls query a: 1 credential key and no other",
            "git.test 443 tls git fetch of a/*",
            "p.test 443 tls tls passthrough",
        ):
            assert part in text
        assert "hidden" not in text.replace('"hidden"', "")
    assert [secret["name"] for secret in json.loads(captured.out)["layers"][0]["secrets"]] == ["key"]
    assert json.loads(captured.out)["intercepted"] == ["v.test", "q.test", "git.test"]
