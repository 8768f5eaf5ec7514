"""`check`: the contract's formats and exit codes, through the command line itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli.main import main

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
