"""`check`: the contract's formats and exit codes, through the command line itself."""

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
from agent.cli.main import main
from agent.cli.questions import surroundings
from agent.daemon.policies.store import read_policy
from agent.policy.model import Policy

POLICY = """\
version: 1
egress:
  allow:
    - {id: api, host: api.test}
    - {id: index, host: index.test, methods: [GET, HEAD], paths: ["/simple/**"]}
    - {id: upload, host: upload.test, methods: [PUT]}
    - {id: plain, host: plain.test, protocol: http}
commands:
  deny:
    - mkfs
    - id: tree
      match: {program: rm, options: [recursive], operands: [/, /etc/**]}
      reason: deletes the system
      instead: delete inside
      examples: {match: [rm -r /], no_match: [rm -r x]}
paths:
  write: [/vol/parhelia/workspaces, %(place)s/w]
  read: [/usr, /etc]
"""


@pytest.fixture(autouse=True)
def own_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "policy"
    directory.mkdir()
    (directory / "p.yaml").write_text(POLICY % {"place": tmp_path})
    monkeypatch.setenv("PARHELIA_POLICY_DIR", str(directory))
    return directory


def run(*arguments: str) -> int:
    return main(["check", *arguments])


def jsonl(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *lines: str | bytes
) -> tuple[int, list[Any]]:
    data = b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    code = run("--jsonl")
    captured = capsys.readouterr()
    assert captured.err == ""
    return code, [json.loads(line) for line in captured.out.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "code", "rule"),
    [
        (["command", "ls -l"], 0, "commands-default"),
        (["command", "rm -rf /"], 3, "tree"),
        (["command", "rm -rf etc", "--cwd", "/"], 3, "tree"),
        (["command", "rm -rf etc"], 0, "commands-default"),
        (["command", "mkfs.ext4 /dev/sda"], 3, "commands.deny[0]"),
        (["command", 'eval "$X"'], 3, "commands-unverifiable"),
        (["egress", "https://api.test/v1"], 0, "api"),
        (["egress", "https://api.test/v1", "--method", "DELETE"], 0, "api"),
        (["egress", "api.test"], 0, "api"),
        (["egress", "api.test:22"], 3, "egress-default"),
        (["egress", "http://api.test/"], 3, "egress-default"),
        (["egress", "https://index.test/simple/x/"], 0, "index"),
        (["egress", "https://index.test/simple"], 3, "egress-default"),
        (["egress", "https://index.test/simple/x", "--method", "POST"], 3, "egress-default"),
        (["egress", "index.test"], 0, "index"),
        (["egress", "upload.test"], 3, "egress-default"),
        (["egress", "upload.test", "--method", "PUT"], 0, "upload"),
        (["egress", "https://upload.test/x", "--method", "PUT"], 0, "upload"),
        (["egress", "http://plain.test/"], 0, "plain"),
        (["path", "write", "/vol/parhelia/workspaces/x"], 0, "paths.write[0]"),
        (["path", "write", "x/y"], 0, "paths.write[0]"),
        (["path", "write", "x", "--cwd", "/etc"], 3, "paths-default"),
        (["path", "write", "/etc/passwd"], 3, "paths-default"),
        (["path", "execute", "/usr/bin/env"], 0, "paths.read[0]"),
        (["path", "delete", "/usr/bin/env"], 3, "paths-default"),
        (["path", "read", "/etc/parhelia/x"], 3, "agent-files"),
        (["path", "write", "/dev/null"], 0, "paths-always"),
    ],
)
def test_the_exit_code_is_the_verdict(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, rule: str
) -> None:
    assert run(*arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f": {rule}" in captured.err.splitlines()[0]
    assert run(*arguments, "--json") == code
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert captured.err == ""
    assert answer["rule"] == rule
    assert list(answer) == ["verdict", "rule", "reason", "where", "instead"]


def test_people_read_reason_place_and_what_to_do_instead(capsys: pytest.CaptureFixture[str], own_policy: Path) -> None:
    run("command", "rm -rf /")
    assert capsys.readouterr().err == (
        f"deny: tree ({own_policy}/p.yaml:11)\n  deletes the system\n  instead: delete inside\n"
    )
    run("egress", "index.test")
    assert "decided again (the connection is intercepted)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["egress", "ftp://x.test/"], "unknown scheme 'ftp'"),
        (["egress", "https://user@x.test/"], "a user name"),
        (["egress", "https://x.test/", "--method", "G T"], "is no HTTP method"),
        (["egress", "https://x.test/", "--header", "novalue"], "is no header field; write 'Name: value'"),
        (["egress", "https://x.test/", "--header", "a b: c"], "is no header field"),
        (["egress", "https://x.test/", "--header", "a: b\r\nc: d"], "the header field 'a' holds a control character"),
        (["path", "read", ""], "the path is empty"),
        (["path", "read", "x", "--cwd", "here"], "cwd must be an absolute path"),
        (["command", "ls", "--cwd", "here"], "cwd must be an absolute path"),
        ([], "needs one of command, egress, path, tool, or --jsonl"),
        (["--jsonl", "command", "ls"], "needs one of command, egress, path, tool, or --jsonl"),
    ],
)
def test_malformed_input_exits_2_and_says_why(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert run(*arguments) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["path", "fly", "/x"], ["weather"], ["command"]])
def test_usage_errors_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_an_invalid_policy_exits_4_with_every_problem(capsys: pytest.CaptureFixture[str], own_policy: Path) -> None:
    (own_policy / "p.yaml").write_text("egres: {}\nversion: 2\n")
    assert run("command", "ls") == 4
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"{own_policy}/p.yaml:1:1: unknown key 'egres'")
    assert lines[1].startswith(f"{own_policy}/p.yaml:2:10: 2 is out of range")
    assert lines[2] == "parhelia: the policy is refused: 2 problems"
    assert run("command", "ls", "--json") == 4
    document = json.loads(capsys.readouterr().out)
    assert document["valid"] is False
    assert document["problems"][0] == {
        "file": f"{own_policy}/p.yaml",
        "line": 1,
        "column": 1,
        "message": "unknown key 'egres' in a policy file",
        "fix": "did you mean 'egress'?",
    }


def test_the_flag_beats_the_environment_and_may_be_given_twice_and_anywhere(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name, text in {"one": "egress: {allow: [a.test, b.test]}", "two": "egress: {deny: [a.test]}"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.yaml").write_text(text)
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert run("egress", "a.test") == 3
    assert run("--policy", one, "egress", "a.test") == 0
    assert run("egress", "a.test", "--policy", one) == 0
    assert run("--policy", one, "egress", "a.test", "--policy", two) == 3
    assert run("--policy", one, "--policy", two, "egress", "b.test", "--json") == 0


def test_observe_mode_says_deny_and_that_it_is_let_through(
    capsys: pytest.CaptureFixture[str], own_policy: Path
) -> None:
    (own_policy / "p.yaml").write_text("egress: {mode: observe}")
    assert run("egress", "x.test", "--json") == 3
    answer = json.loads(capsys.readouterr().out)
    assert (answer["verdict"], answer["enforced"]) == ("deny", False)
    run("egress", "x.test")
    assert "observe mode: it is recorded and let through" in capsys.readouterr().err


def test_symlinks_are_resolved_as_they_are_now(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "out").symlink_to("/etc")
    (tmp_path / "w" / "in").symlink_to("real")
    assert run("path", "write", f"{tmp_path}/w/in") == 0
    assert run("path", "write", f"{tmp_path}/w/out/x") == 3
    assert run("path", "write", f"{tmp_path}/w/x/../out/passwd") == 3
    assert "writing /etc/passwd" in capsys.readouterr().err
    assert run("path", "delete", f"{tmp_path}/w/out") == 0, "deleting concerns the link itself"
    assert run("path", "delete", f"{tmp_path}/w/out/x") == 3


@pytest.mark.parametrize(
    ("access", "name", "status"),
    [
        ("write", ".env", 3),
        ("write", ".env/", 3),
        ("write", "x/../.env", 3),
        ("write", "in/.env", 3),  # through a symlink
        ("delete", ".env", 3),
        ("delete", "p/.git/", 3),
        ("delete", "p/.git/hooks/", 3),
        ("write", "p/.git/hooks/pre-commit", 3),
        ("read", ".env", 0),
        ("write", ".ENV", 0),  # another name
        ("write", "p/.git/config", 0),
    ],
)
def test_a_protected_place_is_found_however_its_path_is_written(
    tmp_path: Path, own_policy: Path, access: str, name: str, status: int
) -> None:
    (tmp_path / "w/p").mkdir(parents=True)
    (tmp_path / "w/in").symlink_to("p")
    (own_policy / "p.yaml").write_text(f"paths: {{write: [{tmp_path}/w], protect: [.env, '.git/hooks/**']}}")
    assert run("path", access, f"{tmp_path}/w/{name}") == status


# --jsonl


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
    assert process.wait(timeout=30) == 0
    process.stdout.close()
