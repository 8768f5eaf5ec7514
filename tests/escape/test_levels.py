"""What each runtime enforces is what it says: doctor, the log and the refusal to start agree with each other."""

from __future__ import annotations

import json
import os
import socket
import subprocess

from tests.escape.runtime import SYSTEM_TRUST, Case, Host, Runtime, policy

EXPECTED = {
    "host": {"egress": "enforced", "exec": "enforced", "paths": "enforced", "agent": "enforced"},
    "docker": {"egress": "enforced", "exec": "enforced", "paths": "enforced", "agent": "enforced"},
    "gvisor": {"egress": "enforced", "exec": "enforced", "paths": "partial", "agent": "enforced"},
}
CAPTURED = {"host": ["every-port"], "docker": ["by-the-guard"], "gvisor": ["common-ports", "none"]}
WORDS = {
    "partial": ("any address on the proxy's port", "file permissions"),
}


def test_doctor_the_log_and_the_terminal_say_the_same(runtime: Runtime) -> None:
    expected = EXPECTED[runtime.name]
    doctor = json.loads(runtime.agent("doctor", "--json").stdout)
    assert doctor["mechanisms"]["captured_connections"] in CAPTURED[runtime.name]
    said = doctor["points"]
    assert {point: found["level"] for point, found in said.items()} == expected
    outcome = runtime.run(Case(("/bin/true",), policy()))
    (created,) = outcome.of("session.create")
    assert created["details"]["levels"] == expected
    below = {point: level for point, level in expected.items() if level != "enforced"}
    degraded = {event["resource"]: event["details"] for event in outcome.of("agent.degraded")}
    assert {point: details["level"] for point, details in degraded.items()} == below
    for point, level in below.items():
        assert any(word in degraded[point]["reason"] for word in WORDS[level]), degraded[point]
        assert f"{point} is {level}" in outcome.stderr


def test_a_session_that_must_be_contained_starts_only_where_it_is(runtime: Runtime) -> None:
    contained = all(EXPECTED[runtime.name][point] == "enforced" for point in ("egress", "paths", "agent"))
    outcome = runtime.run(Case(("/bin/echo", "started"), policy(), flags=("--require", "contained")))
    assert (outcome.status, outcome.stdout) == ((0, "started\n") if contained else (5, "")), outcome.stderr
    assert runtime.agent("doctor", "--require", "contained").returncode == (0 if contained else 5)


def test_sockets_of_the_machine_under_run_cannot_be_reached(host: Host) -> None:
    path = f"/run/parhelia-test-{os.getpid()}.sock"
    dial = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        try:
            os.chmod(path, 0o666)
            server.listen(1)
            command = ["/usr/bin/python3", "-c", dial, path]
            assert subprocess.run(["runuser", "-u", "session", "--", *command], check=False).returncode == 0
            outcome = host.run(Case(tuple(command), policy()))
            assert outcome.status == 1
            assert "FileNotFoundError" in outcome.stderr
        finally:
            os.unlink(path)


def test_the_trust_bundle_stands_in_the_place_of_the_systems(host: Host) -> None:
    script = f"env -u SSL_CERT_FILE cmp {SYSTEM_TRUST} $SSL_CERT_FILE && echo same"
    assert host.run(Case(("/bin/sh", "-c", script), policy())).stdout == "same\n"
