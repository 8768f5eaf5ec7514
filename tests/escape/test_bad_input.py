"""Bad input gets a clear error and loses nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.escape.runtime import Case, Host, policy, read_log, verify


def test_a_broken_policy_exits_4_and_names_the_place(host: Host) -> None:
    outcome = host.run(Case(("/bin/echo", "never"), "version: 1\negress:\n  alow: [pypi.org]\n"))
    assert (outcome.status, outcome.stdout) == (4, "")
    assert "policy.yaml:3:3" in outcome.stderr
    assert [event["details"]["event_type"] for event in outcome.events] == [
        "agent.start", "policy.rejected", "agent.stop",
    ]  # fmt: skip
    assert outcome.verified == 0


def test_an_unresolvable_pushgateway_is_never_in_the_way(host: Host) -> None:
    case = Case(("/bin/echo", "fine"), policy(), env={"PARHELIA_PUSHGATEWAY_URL": "http://gateway.invalid:9091"})
    outcome = host.run(case)
    assert (outcome.status, outcome.stdout) == (0, "fine\n"), outcome.stderr


def test_a_pushgateway_with_credentials_is_invisible_to_the_session(host: Host) -> None:
    script = "env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'; true"
    case = Case(
        ("/bin/sh", "-c", script), policy(), env={"PARHELIA_PUSHGATEWAY_URL": "http://u:hunter2secret@gateway.invalid"}
    )
    outcome = host.run(case)
    assert outcome.status == 0, outcome.stderr
    assert "HTTPS_PROXY=" in outcome.stdout
    assert "hunter2secret" not in outcome.stdout
    assert "PARHELIA_" not in outcome.stdout


@pytest.mark.parametrize(("on_failure", "reached"), [("deny", False), ("continue", True)])
def test_a_full_audit_disk_does_as_the_policy_says(host: Host, tmp_path: Path, on_failure: str, reached: bool) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    port = host.upstream.ports["http"]
    text = policy() + f"audit: {{on_failure: {on_failure}}}\n"
    host.audit = volume / "log"
    curl = "curl -sS --noproxy '' --max-time 20"
    # the first events fill the log's last page; what comes after the writer knows is what the policy decides
    fill = f"for n in $(seq 20); do {curl} -o /dev/null http://forbidden.test:$n/; done"
    script = f"echo up; read line; {fill}; sleep 1; "
    case = Case(("/bin/sh", "-c", script + f"{curl} http://allowed.test:{port}/"), text)
    mount = 'mount -t tmpfs -o size=64k none "$0" && exec "$@"'
    command = host.command(case)
    process = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", mount, str(volume), *command],
        env=host.environment(case), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "up\n"
    filler = Path(f"/proc/{process.pid}/root{volume}/filler")
    with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
        for _ in range(100):
            file.write(b"x" * 4096)
    out, err = process.communicate("go\n", timeout=60)
    assert ("reached" in out) is reached, (out, err)


def test_require_contained_refuses_where_something_is_missing_and_starts_where_nothing_is(host: Host) -> None:
    outcome = host.run(Case(("/bin/echo", "contained"), policy(), flags=("--require", "contained")))
    doctor = host.agent("doctor", "--require", "contained").returncode
    assert outcome.status == doctor, outcome.stderr
    assert (outcome.stdout == "contained\n") is (doctor == 0)


def test_a_policy_directory_that_the_session_could_read_is_covered(host: Host, tmp_path: Path) -> None:
    open_policy = Path("/tmp") / f"open-policy-{tmp_path.name}"
    open_policy.mkdir(mode=0o755)
    try:
        host.policies = open_policy
        script = f"cat {open_policy}/policy.yaml; ls {open_policy}; echo > {open_policy}/x; true"
        outcome = host.run(Case(("/bin/sh", "-c", script), policy()))
        assert outcome.status == 0, outcome.stderr
        assert "version" not in outcome.stdout and "policy.yaml" not in outcome.stdout
        assert sorted(path.name for path in open_policy.iterdir()) == ["policy.yaml"]
    finally:
        for path in open_policy.iterdir():
            path.unlink()
        open_policy.rmdir()


def test_the_log_is_left_whole_by_every_one_of_these(host: Host) -> None:
    for text in ("version: 2\n", policy()):
        host.run(Case(("/bin/true",), text))
    assert verify(host.audit) == 0
    assert [event["details"]["event_type"] for event in read_log(host.audit)].count("agent.stop") == 2


def test_a_section_that_only_observes_lets_through_records_and_is_not_contained(host: Host) -> None:
    port = host.upstream.ports["http"]
    text = policy().replace("egress:\n", "egress:\n  mode: observe\n").replace("paths:\n", "paths:\n  mode: observe\n")
    script = (
        f"curl -sS --noproxy '' http://forbidden.test:{port}/; echo x > /var/tmp/$$ && rm /var/tmp/$$; echo paths=$?"
    )
    outcome = host.run(Case(("/bin/sh", "-c", script), text))
    assert "paths=0" in outcome.stdout, outcome.stdout + outcome.stderr
    blocked = outcome.of("network.egress_blocked")
    seen = [(event["result"], event["details"]["enforced"], event["details"]["stage"]) for event in blocked]
    assert seen == [("success", False, "connect"), ("success", False, "request")]
    assert {event["resource"] for event in outcome.of("agent.degraded")} == {"egress", "paths"}
    assert host.run(Case(("/bin/true",), text, flags=("--require", "contained"))).status == 5


@pytest.mark.parametrize(("on_failure", "status"), [("deny", 5), ("continue", 0)])
def test_a_session_on_a_disk_that_is_full_already_does_as_the_policy_says(
    host: Host, tmp_path: Path, on_failure: str, status: int
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir(mode=0o700)
    host.audit = volume / "log"
    case = Case(("/bin/echo", "started"), policy() + f"audit: {{on_failure: {on_failure}}}\n")
    fill = 'mkdir -m 700 "$0/log" && cat /dev/zero > "$0/filler"; exec "$@"'
    mount = f'mount -t tmpfs -o size=64k,mode=700 none "$0" && {fill}'
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", mount, str(volume), *host.command(case)],
        env=host.environment(case), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (status, "" if status else "started\n"), done.stderr
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize(
    ("flags", "command", "status", "words"),
    [
        (("--workdir", "/no/such"), "/bin/true", 2, "--workdir /no/such: no such directory"),
        (("--workdir", "/root"), "/bin/true", 2, "the working directory /root: Permission denied"),
        ((), "", 127, "'': no such command"),
        ((), "/etc", 126, "/etc: permission denied"),
        ((), "/etc/passwd", 126, "/etc/passwd: permission denied"),
    ],
)
def test_what_cannot_be_started_says_so_without_a_traceback(
    host: Host, flags: tuple[str, ...], command: str, status: int, words: str
) -> None:
    outcome = host.run(Case((command,), policy(), flags))
    assert (outcome.status, outcome.stdout) == (status, "")
    assert words in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_home_that_the_session_could_not_write_to_is_made_for_it(host: Host) -> None:
    script = "echo x > $HOME/x && cat $HOME/x; id -un"
    outcome = host.run(Case(("/bin/sh", "-c", script), policy(), ("--user", "nobody")))
    assert outcome.stdout == "x\nnobody\n", outcome.stderr
    assert not Path("/nonexistent").exists()
