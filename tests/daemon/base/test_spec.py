"""What was asked for arrives unchanged, and bad requests are refused before anything starts."""

from __future__ import annotations

import argparse
import json

import pytest

from agent.cli import run, run_request
from agent.daemon.base.spec import RunSpec, User

SPEC = RunSpec(
    command=("id",), policy_dirs=("/p",), audit_dir="/a", run_root="/r", run_dir="/r/x", workdir=None,
    require_contained=False, session_id="s", boot="b", env_label="default", pushgateway_url=None,
    session_user=User("session", 1, 1, "/home/session", "/bin/sh"), egress_user=None, session_env={"A": "b"},
)  # fmt: skip


def test_a_spec_comes_back_equal() -> None:
    assert RunSpec.parse(json.loads(json.dumps(SPEC.dump()))) == SPEC
    assert RunSpec.from_bytes(SPEC.to_bytes()) == SPEC


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    run.add_parser(parser.add_subparsers())
    return parser.parse_args(["run", *words])


@pytest.mark.parametrize(
    ("words", "environ", "reason"),
    [
        ((), {}, "no command"),
        (("--",), {}, "no command"),
        (("--", "id"), {"PARHELIA_SESSION_ID": "../x"}, "PARHELIA_SESSION_ID"),
        (("--", "id"), {"PARHELIA_SESSION_ID": "a" * 101}, "PARHELIA_SESSION_ID"),
        (("--user", "root", "--", "id"), {}, "must not be root"),
        (("--env", "NOT_THERE", "--", "id"), {}, "NOT_THERE"),
    ],
)
def test_a_bad_request_is_refused_with_its_reason(
    words: tuple[str, ...], environ: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    if reason not in ("must not be root",):
        monkeypatch.setattr(run_request, "_users", lambda _: (SPEC.session_user, None))
    with pytest.raises(run_request.UsageError, match=reason):
        run_request.build_spec(arguments(*words), environ)


def test_the_sessions_user_is_not_the_egress_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(run_request, "EGRESS_USER", "daemon")
    with pytest.raises(run_request.UsageError, match="must not be daemon"):
        run_request.build_spec(arguments("--user", "daemon", "--", "id"), {})


def test_a_missing_account_is_said_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(run_request.MissingUser, match="make setup"):
        run_request.build_spec(arguments("--user", "nobody-of-that-name", "--", "id"), {})


def test_flags_beat_the_environment_and_the_agents_variables_stay_with_the_agent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_request, "_users", lambda _: (SPEC.session_user, None))
    environ = {
        "PARHELIA_AUDIT_DIR": "/from/env", "PARHELIA_RUN_DIR": "/run/env", "PARHELIA_SESSION_ID": "abc",
        "PARHELIA_PUSHGATEWAY_URL": "http://user:secret@gateway.test", "AWS_SECRET_ACCESS_KEY": "x", "LC_ALL": "C",
        "TOKEN": "t",
    }  # fmt: skip
    spec = run_request.build_spec(arguments("--audit-dir", "/from/flag", "--env", "TOKEN", "--", "id", "-u"), environ)
    assert (spec.audit_dir, spec.run_root, spec.session_id) == ("/from/flag", "/run/env", "abc")
    assert spec.command == ("id", "-u")
    assert spec.pushgateway_url == "http://user:secret@gateway.test"
    assert set(spec.session_env) == {"HOME", "USER", "SHELL", "PATH", "LC_ALL", "TOKEN"}
    assert not any(name.startswith("PARHELIA_") for name in spec.caller_env)
