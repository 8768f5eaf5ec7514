"""Values are read before the session starts and on record; what can't be had, or can't be kept, ends the run."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.daemon.base.places import Exposed
from agent.daemon.base.spec import RunSpec, User
from agent.daemon.launch.placeholders import write_placeholder, write_placeholders
from agent.daemon.launch.secrets import (
    SecretMissing,
    check_kept,
    placeholder,
    placeholder_environment,
    read_secrets,
    secret_files,
)
from agent.enforce.egress.secrets import HeldSecret, Secrets
from agent.policy.model import Layer, Policy, Secret, SecretSource, SourceKind, Where
from agent.record.event import Action, Event, EventType, ResourceType, Result
from agent.record.ledger import Ledger
from tests.daemon.base.test_spec import SPEC
from tests.escape.runtime import read_log

VALUE = "real-value-0123456789"
NOBODY = User("nobody", 65534, 65534, "/nonexistent", "/bin/sh")
ONE_USER = replace(SPEC, caller_env={"KEY": VALUE})
TWO_USERS = replace(ONE_USER, session_user=NOBODY, egress_user=User("parhelia", 65533, 65533, "/", "/bin/sh"))


def entry(kind: SourceKind, *value: str, name: str = "api", env: str | None = "API", file: str | None = None) -> Secret:
    where = Where("p.yaml", 1, 1)
    return Secret(name, SecretSource(kind, value), ("a.test",), ("x-api-key",), where, env=env, file=file)


def policy(*entries: Secret) -> Policy:
    return Policy(layers=(Layer("p", secrets=entries),), digest="d")


def read(given: Secret, spec: RunSpec = ONE_USER, seconds: float = 60) -> str:
    seen: list[str] = []
    secrets = read_secrets(policy(given), spec, lambda each: seen.append(each.name), command_seconds=seconds)
    assert seen == ["api"]
    assert secrets["api"].placeholder.startswith("parhelia-placeholder-api-")
    return secrets["api"].value


def test_a_value_comes_from_the_agents_environment() -> None:
    assert read(entry(SourceKind.ENV, "KEY")) == VALUE


def test_a_value_comes_from_a_file_without_its_last_line_end(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(VALUE + "\n")
    assert read(entry(SourceKind.FILE, str(tmp_path / "key"))) == VALUE
    assert secret_files(policy(entry(SourceKind.FILE, "/k"), entry(SourceKind.ENV, "K"))) == ["/k"]


def test_a_value_comes_from_a_command_that_sees_nothing_of_the_agents_environment() -> None:
    script = (
        f'test -z "$KEY" && test "$(ls -d /proc/self/fd/[3-9] 2>/dev/null | wc -l)" -le 1 && echo {VALUE}; echo x >&2'
    )
    assert read(entry(SourceKind.COMMAND, "sh", "-c", script)) == VALUE


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (entry(SourceKind.ENV, "NOT_SET"), "the variable NOT_SET of the agent's environment is missing"),
        (entry(SourceKind.FILE, "/nonexistent/key"), "No such file"),
        (entry(SourceKind.FILE, "/dev/zero"), "not a regular file"),
        (entry(SourceKind.FILE, "/"), "directory"),
        (entry(SourceKind.COMMAND, "no-such-program"), "no program no-such-program"),
        (entry(SourceKind.COMMAND, "false"), "status 1"),
        (entry(SourceKind.COMMAND, "true"), "missing or empty"),
        (entry(SourceKind.COMMAND, "sleep", "60"), "did not end within"),
        (entry(SourceKind.COMMAND, "printf", "short"), "fewer than 8"),
        (entry(SourceKind.COMMAND, "printf", f"{VALUE}\\n\\nX-Evil: 1"), "no header field can carry"),
        (entry(SourceKind.COMMAND, "printf", f"{VALUE}\\303\\244"), "no header field can carry"),
        (entry(SourceKind.COMMAND, "seq", "100000"), "more than 16384"),
    ],
)
def test_a_value_that_cannot_be_had_ends_the_run_and_is_in_no_message(given: Secret, reason: str) -> None:
    with pytest.raises(SecretMissing, match="secret api") as caught:
        read(given, seconds=1 if given.source.value == ("sleep", "60") else 60)
    assert reason in str(caught.value)
    assert VALUE not in str(caught.value)


def test_a_read_that_cannot_be_recorded_does_not_happen(tmp_path: Path) -> None:
    def refuse(_: Secret) -> None:
        raise OSError("no log")

    with pytest.raises(OSError, match="no log"):
        read_secrets(policy(entry(SourceKind.COMMAND, "touch", str(tmp_path / "ran"))), ONE_USER, refuse)
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="ownership needs root")
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda key: key.chmod(0o644), "can be read by the session's user"),
        (lambda key: os.chown(key, NOBODY.uid, NOBODY.gid), "can be read by the session's user"),
        (lambda key: os.chown(key.parent, NOBODY.uid, NOBODY.gid), "may replace"),
        (lambda key: key.parent.chmod(0o777), "may replace"),
    ],
)
def test_a_file_in_the_sessions_reach_ends_the_run(
    tmp_path_factory: pytest.TempPathFactory, spoil: Callable[[Path], None], reason: str
) -> None:
    directory = Path("/var/lib") / f"parhelia-test-{os.getpid()}"  # where no parent keeps the session out
    directory.mkdir(mode=0o755)
    key = directory / "key"
    try:
        key.write_text(VALUE)
        key.chmod(0o600)
        assert read(entry(SourceKind.FILE, str(key)), TWO_USERS) == VALUE
        spoil(key)
        with pytest.raises(Exposed, match=reason):
            read(entry(SourceKind.FILE, str(key)), TWO_USERS)
    finally:
        key.unlink()
        directory.rmdir()


def test_placeholders_are_fresh_recognisable_and_fit_a_label() -> None:
    made = {placeholder("A Very_Long name of a Secret!") for _ in range(50)}
    assert len(made) == 50
    assert all(each.startswith("parhelia-placeholder-a-very-lon") and len(each) <= 63 for each in made)


def test_the_sessions_variable_holds_the_placeholder() -> None:
    held = Secrets([HeldSecret("api", "parhelia-placeholder-api-1", VALUE)])
    given = policy(entry(SourceKind.ENV, "KEY"))
    assert placeholder_environment(given, held) == {"API": "parhelia-placeholder-api-1"}


@pytest.mark.parametrize(
    ("environment", "command", "reason"),
    [
        ({"OTHER": f"x{VALUE}"}, [], "variable OTHER"),
        ({"CODED": VALUE.encode().hex()}, [], "variable CODED"),
        ({}, ["curl", f"--header=X-Api-Key: {VALUE}"], "command line"),
    ],
)
def test_a_session_that_would_be_started_with_a_value_is_not(
    environment: dict[str, str], command: list[str], reason: str
) -> None:
    held = Secrets([HeldSecret("api", "parhelia-placeholder-api-1", VALUE)])
    with pytest.raises(Exposed, match=reason) as caught:
        check_kept(held, environment, command)
    assert VALUE not in str(caught.value)
    check_kept(held, {"API": "parhelia-placeholder-api-1"}, ["id"])


def test_no_line_of_the_log_holds_a_value_or_a_placeholder(tmp_path: Path) -> None:
    held = Secrets([HeldSecret("api", "parhelia-placeholder-api-1", VALUE)])
    ledger = Ledger(tmp_path / "log", session_id="s", boot="b")
    ledger.start()
    ledger.redact_with(held.redact_event)
    details = {"path": f"/x/{VALUE}", "argv": ["curl", VALUE.encode().hex()], VALUE: {"deep": [VALUE]}}
    for take in (ledger.post, ledger.accept):
        take(
            Event(
                type=EventType.NETWORK_EGRESS_BLOCKED,
                actor="session:s",
                action=Action.CREATE,
                resource=f"{VALUE}.evil.test:443 parhelia-placeholder-api-1",
                resource_type=ResourceType.NETWORK,
                result=Result.DENIED,
                details={"rule": "r", **details},
            )
        )
    ledger.close()
    text = "".join(file.read_text() for file in (tmp_path / "log").glob("*.jsonl"))
    assert held.find(text.encode()) is None
    event = read_log(tmp_path / "log")[0]
    assert event["resource"] == "[secret api].evil.test:443 [secret api]"
    assert event["details"]["argv"] == ["curl", "[secret api]"]


def test_a_placeholder_file_is_made_below_home_for_the_session_alone(tmp_path: Path) -> None:
    held = Secrets([HeldSecret("api", "parhelia-placeholder-api-1", VALUE)])
    given = policy(entry(SourceKind.ENV, "KEY", env=None, file="~/.config/tool/key"))
    for _ in range(2):  # the one of an earlier session is replaced
        write_placeholders(given, held, str(tmp_path), ONE_USER)
    file = tmp_path / ".config/tool/key"
    assert file.read_text() == "parhelia-placeholder-api-1\n"
    assert file.stat().st_mode & 0o7777 == 0o600
    assert [each.name for each in file.parent.iterdir()] == ["key"]


@pytest.mark.parametrize("file", ["/etc/key", "~/../key", "~/", "~/a/../../key"])
def test_a_placeholder_file_elsewhere_is_refused(tmp_path: Path, file: str) -> None:
    with pytest.raises(Exposed, match="not below"):
        write_placeholder(str(tmp_path), file, "parhelia-placeholder-x", None)


def test_what_is_there_already_is_neither_followed_nor_overwritten(tmp_path: Path) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside"
    home.mkdir()
    outside.mkdir()
    (home / "link").symlink_to(outside)
    (home / "mine").write_text("my own")
    (home / "last").symlink_to(outside / "key")
    for file, kind in (("~/link/key", OSError), ("~/mine", Exposed), ("~/last", OSError)):
        with pytest.raises(kind):
            write_placeholder(str(home), file, "parhelia-placeholder-x", None)
    assert list(outside.iterdir()) == []
    assert (home / "mine").read_text() == "my own"
