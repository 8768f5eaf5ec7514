"""Another process of the account moves a repository to and fro while a session starts: its hooks stay as they are, or
the session is not contained and the log says why."""

from __future__ import annotations

import http.server
import os
import pwd
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from agent.exits import Exit
from agent.linux.process import set_pdeathsig
from tests.escape.runtime import Case, Host, Outcome, policy
from tests.escape.test_secrets import Gateway

ATTEMPTS = 5
"""Sessions until one was seen to be swapped: the two processes may come to run one after the other."""
WRITES = r"""
import os, sys, time
ended, opened = time.monotonic() + 0.3, set()
while time.monotonic() < ended:
    for name in ("a", "b"):
        try:
            os.close(os.open(f"{sys.argv[1]}/{name}/repo/.git/hooks/pre-commit", os.O_WRONLY))
            opened.add(name)
        except OSError:
            pass
print(*opened)
"""


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    made = Path("/tmp") / f"swapped-{os.getpid()}-{tmp_path.name[-8:]}"
    for name in ("a/repo/.git/hooks", "b"):
        (made / name).mkdir(parents=True)
    (made / "a/repo/.git/hooks/pre-commit").write_text("old")
    subprocess.run(["chown", "-R", "session:session", str(made)], check=True)
    yield made
    shutil.rmtree(made)


@contextmanager
def moving(base: Path) -> Iterator[None]:
    """For as long as it is open, as the session's account."""
    account, (one, other) = pwd.getpwnam("session"), (base / "a/repo", base / "b/repo")
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
            os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
            set_pdeathsig(signal.SIGKILL)
            while True:
                with suppress(OSError):
                    os.rename(one, other)
                    os.rename(other, one)
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def attacked(host: Host, base: Path, *flags: str, url: str = "") -> Outcome:
    text = policy(write=str(base)) + "  protect: [.git/hooks/**]\n"
    command = ("/usr/bin/python3", "-c", WRITES, str(base))
    with moving(base):
        return host.run(Case(command, text, ("--workdir", str(base), *flags), {"PARHELIA_PUSHGATEWAY_URL": url}))


def said(outcome: Outcome) -> list[str]:
    return [
        event["details"]["reason"]
        for event in outcome.of("agent.degraded")
        if event["resource"] == "paths" and "is protected" in event["details"]["reason"]
    ]


@pytest.mark.root
def test_a_session_whose_protected_places_are_moved_while_it_starts_is_not_contained(host: Host, base: Path) -> None:
    for contained in range(ATTEMPTS):
        outcome = attacked(host, base, "--require", "contained")
        if outcome.status == Exit.UNPROTECTED:
            assert "is protected, and " in outcome.stderr
            assert said(outcome)
            assert len(outcome.of("session.create")) == contained
            break
        assert outcome.status == 0, outcome.stderr
    else:
        pytest.fail(f"in none of {ATTEMPTS} sessions the moves were seen")


@pytest.mark.root
def test_what_is_moved_while_a_session_starts_is_held_or_said_and_on_record(host: Host, base: Path) -> None:
    pushed: list[str] = []
    gateway = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Kept", (Gateway,), {"pushed": pushed}))
    threading.Thread(target=gateway.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{gateway.server_address[1]}"
    for _ in range(ATTEMPTS):
        outcome = attacked(host, base, "--require", "best-effort", url=url)
        assert outcome.status == 0, outcome.stderr
        opened = outcome.stdout.split()
        assert not opened or outcome.of("integrity.changed") or said(outcome)
        if said(outcome):
            break
    else:
        pytest.fail(f"in none of {ATTEMPTS} sessions the moves were seen")
    gateway.shutdown()
    gateway.server_close()
    level = outcome.of("session.create")[-1]["details"]["levels"]["paths"]
    assert level in {"partial", "off"}
    line = f'parhelia_agent_enforcement_level{{level="{level}",point="paths"}} 1.0'
    assert line in pushed[-1].splitlines()
