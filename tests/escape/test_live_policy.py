"""A policy file changes while a session has a tunnel open: on every runtime it is cut, recorded, and the next refused;
a file with mistakes changes nothing but the log."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.escape.containers import Container
from tests.escape.runtime import Case, Host, Outcome, Runtime, policy, read_log
from tests.escape.test_secrets import Gateway

SECONDS = 100.0
SESSION = r"""
import json, os, socket, ssl, sys, time
from urllib.parse import urlsplit
port, proxy = sys.argv[1], urlsplit(os.environ["HTTPS_PROXY"])
ask = f"CONNECT allowed.test:{port} HTTP/1.1\r\nHost: allowed.test:{port}\r\n\r\n".encode()
def connect():
    link = socket.create_connection((proxy.hostname, proxy.port), timeout=90)
    link.sendall(ask)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += link.recv(1) or b"\r\n\r\n"
    return link, head.decode()
link, head = connect()
trust = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
answers, how = 0, "time"
try:
    with trust.wrap_socket(link, server_hostname="allowed.test") as tls:
        for _ in range(900):
            tls.sendall(b"GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n")
            if not tls.recv(65536):
                how = "end"
                break
            answers += 1
            time.sleep(0.1)
except (ConnectionResetError, BrokenPipeError, ssl.SSLError) as error:
    how = type(error).__name__
print(json.dumps([answers, how, connect()[1]]))
"""


def places(runtime: Runtime) -> tuple[Path, Path]:
    """The policy file and the log, as this machine sees them."""
    if isinstance(runtime, Container):
        return runtime.directory / "policies" / "policy.yaml", runtime.directory / "audit"
    return Path(runtime.policies) / "policy.yaml", runtime.audit


def events(log: Path, kind: str) -> list[dict[str, Any]]:
    try:
        return [event for event in read_log(log) if event["details"]["event_type"] == kind]
    except (FileNotFoundError, json.JSONDecodeError):  # a line is being written
        return []


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"in vain waited for {what}"
        time.sleep(0.1)


def change(runtime: Runtime) -> None:
    """What an operator does beside the session: a mistake first, then the rule of the open tunnel is taken away."""
    file, log = places(runtime)
    until(lambda: events(log, "network.egress"), "the tunnel")
    good = file.read_text()
    replace(file, good.replace("egress:", "egres:"))
    until(lambda: events(log, "policy.rejected"), "the rejection")
    port = str(runtime.upstream.ports["tls"])
    replace(file, "".join(line for line in good.splitlines(keepends=True) if port not in line))


def replace(file: Path, text: str) -> None:
    fresh = file.with_name("next")
    fresh.write_text(text)
    fresh.rename(file)


def changed_under(runtime: Runtime, env: dict[str, str]) -> Outcome:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            change(runtime)
        except BaseException as error:
            failures.append(error)

    operator = threading.Thread(target=work)
    operator.start()
    command = ("/usr/bin/python3", "-c", SESSION, str(runtime.upstream.ports["tls"]))
    try:
        return runtime.run(Case(command, policy(), env=env))
    finally:
        operator.join()
        assert not failures, failures  # also where the session went on for too long because of it


def check(outcome: Outcome, port: int) -> None:
    answers, how, next_answer = json.loads(outcome.stdout)
    assert answers > 0
    assert how in ("ConnectionResetError", "BrokenPipeError", "SSLEOFError", "SSLError"), how
    assert next_answer.startswith("HTTP/1.1 403 ")
    assert "X-Parhelia-Rule: egress-default" in next_answer
    (rejected,) = outcome.of("policy.rejected")
    assert "egres" in rejected["details"]["reason"]
    (reloaded,) = outcome.of("policy.reload")
    assert reloaded["details"]["changed"] == ["egress"]
    cut, refused = outcome.of("network.egress_blocked")
    for event in (cut, refused):
        assert (event["resource"], event["result"], event["details"]["rule"]) == (
            f"allowed.test:{port}",
            "denied",
            "egress-default",
        )
        assert event["details"]["policy_digest"] == reloaded["details"]["policy_digest"]
    assert cut["details"]["reason"].startswith("the policy changed: ")
    seqs = [event["details"]["seq"] for event in (rejected, reloaded, cut, refused)]
    assert seqs == sorted(seqs)
    assert outcome.verified == 0


@contextlib.contextmanager
def begun(host: Host) -> Iterator[subprocess.Popen[bytes]]:
    """A session that runs for as long as the block does, and then ends with 7."""
    case = Case(("/bin/sh", "-c", "echo begun; read _; exit 7"), policy())
    process = subprocess.Popen(
        host.command(case),
        env=host.environment(case),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        yield process
        process.communicate(b"\n", timeout=60)
        assert process.returncode == 7
    finally:
        process.kill()
        process.wait()


@pytest.mark.root
def test_sighup_asks_for_the_policy_and_leaves_the_session_alone(host: Host) -> None:
    with begun(host) as process:
        process.send_signal(signal.SIGHUP)  # the command has become the keeper (execve)
        until(lambda: events(host.audit, "policy.reload"), "the reload")
        (event,) = events(host.audit, "policy.reload")
        assert (event["details"]["reason"], event["details"]["changed"]) == ("SIGHUP", [])


def test_an_open_tunnel_is_cut_when_its_rule_is_taken_away(runtime: Runtime) -> None:
    outcome = changed_under(runtime, {})
    assert outcome.status == 0, outcome.stderr
    check(outcome, runtime.upstream.ports["tls"])


@pytest.mark.root
def test_the_cut_is_counted(host: Host) -> None:
    pushed: list[str] = []
    gateway = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Kept", (Gateway,), {"pushed": pushed}))
    threading.Thread(target=gateway.serve_forever, daemon=True).start()
    outcome = changed_under(host, {"PARHELIA_PUSHGATEWAY_URL": f"http://127.0.0.1:{gateway.server_address[1]}"})
    gateway.shutdown()
    gateway.server_close()
    check(outcome, host.upstream.ports["tls"])
    assert 'parhelia_security_denied_total{event_type="network.egress_blocked"} 2.0' in pushed[-1].splitlines()


@pytest.mark.root
def test_a_policy_directory_that_is_half_written_leaves_the_last_good_policy(host: Host) -> None:
    """Each way in which an operator's tool may leave the files for a while; the session goes on under what it had."""
    with begun(host):
        rejected = half_written(host.policies / "policy.yaml", host)
    assert [(reason, found) for reason, found in rejected if reason not in found] == []
    (reloaded,) = events(host.audit, "policy.reload")
    assert reloaded["details"]["changed"] == ["egress"]
    seqs = [event["details"]["seq"] for event in events(host.audit, "policy.rejected")]
    assert len(seqs) == len(rejected)
    assert max(seqs) < reloaded["details"]["seq"]


def half_written(file: Path, host: Host) -> list[tuple[str, str]]:
    """(the reason that is expected, the one that is recorded) of each; at last two files are changed slowly, as one."""
    good = file.read_text()
    theirs = host.directory / "theirs.yaml"
    theirs.write_text(good + "# theirs\n")
    shutil.chown(theirs, "session")
    found = []
    for put, reason in (
        (lambda path: path.write_text(good[: good.index("paths:") - 30]), "policy.yaml"),  # in the middle of a rule
        (os.mkfifo, "not a regular file"),
        (lambda path: path.symlink_to(theirs), "could have been written by the session"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.symlink_to("nowhere"), "No such file"),
    ):
        before = len(events(host.audit, "policy.rejected"))
        fresh = file.with_name("next")
        put(fresh)
        away = file.with_name("away")
        file.rename(away)
        fresh.rename(file)
        until(lambda count=before: len(events(host.audit, "policy.rejected")) > count, reason)
        found.append((reason, events(host.audit, "policy.rejected")[-1]["details"]["reason"]))
        file.rename(host.directory / f"used-{before}")
        away.rename(file)
    with file.open("w") as first, file.with_name("second.yaml").open("w") as second:
        first.write(good[: good.index("commands:")])  # valid, and without a single denial
        first.flush()
        time.sleep(4)
        second.write("version: 1\negress: {allow: [other.test]}\n")
        second.flush()
        time.sleep(2)
        first.write(good[good.index("commands:") :])
    until(lambda: events(host.audit, "policy.reload"), "the reload of both")
    return found
