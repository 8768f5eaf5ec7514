"""Secrets of the policy: the session holds placeholders, the upstream gets the values, nothing else sees either."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
from dataclasses import replace
from pathlib import Path
from secrets import token_hex

import pytest

from agent.enforce.egress.needles import Needles
from tests.escape.client import CLIENT, Ask
from tests.escape.runtime import Case, Host, Outcome, Runtime, policy

VALUE = f"real-Value+of/the~secret-{token_hex(8)}"
DIGEST = hashlib.sha256(VALUE.encode()).hexdigest()
RULES = """\
    - {host: forbidden.test, ports: [{tls}], addresses: [127.0.0.0/8], credential: {secret: api, only: true}}
"""
SECRETS = """\
secrets:
  - {name: api, from: {env: AGENT_KEY}, hosts: [forbidden.test], header: x-api-key, as: {env: API_KEY}}
  - {name: spare, from: {command: [/usr/bin/printf, another-spare-value]}, hosts: [forbidden.test], header: x-spare,
     as: {file: ~/.spare}}
"""
POLICY = policy(extra_egress=RULES) + SECRETS

PLACEHOLDER = r"""
import os, sys
wanted = sys.argv[1].replace("PLACEHOLDER", os.environ["API_KEY"])
sys.argv[1] = wanted
"""

SEARCH = r"""
import os, sys
halves = sys.argv[1:3]
value = "".join(halves).encode()
found = [name for name, text in os.environ.items() if value in text.encode()]
places = ["/proc", "/tmp", "/run", "/etc/parhelia", "/dev/shm", os.environ["HOME"], os.environ["TMPDIR"]]
for top in places:
    for where, folders, files in os.walk(top, onerror=lambda _: None):
        if top == "/proc":
            folders[:] = [name for name in folders if name.isdigit() and where == "/proc" or name in ("task", "fd")]
            descriptors = where.endswith("/fd")  # of others, and what they have open: files in memory too
            files = [name for name in files if descriptors or name in ("environ", "cmdline", "comm", "maps", "smaps")]
        for name in files:
            path = os.path.join(where, name)
            try:
                if os.path.isfile(path):
                    with open(path, "rb") as file:
                        if value in file.read(1 << 22):
                            found.append(path)
            except OSError:
                pass
print(os.environ["API_KEY"], os.environ.get("AGENT_KEY"), open(os.path.expanduser("~/.spare")).read().strip())
print(found)
"""


def session(runtime: Runtime, *argv: str) -> Outcome:
    outcome = runtime.run(Case(("/usr/bin/python3", "-c", *argv), POLICY, env={"AGENT_KEY": VALUE}))
    assert outcome.status == 0, outcome.stderr
    return outcome


def test_nothing_of_the_session_holds_a_value(runtime: Runtime) -> None:
    outcome = session(runtime, SEARCH, VALUE[:17], VALUE[17:])
    shown, found = outcome.stdout.splitlines()
    variable, agents, file = shown.split()
    assert variable.startswith("parhelia-placeholder-api-")
    assert agents == "None"
    assert file.startswith("parhelia-placeholder-spare-")
    assert found == "[]"
    reads = [(event["resource"], event["action"], event["details"]["source"]) for event in outcome.of("secret.access")]
    assert reads == [("api", "READ", "env"), ("spare", "READ", "command")]


ASKS = (
    Ask("https://forbidden.test:{tls}/pub", headers={"X-Api-Key": "PLACEHOLDER"}),
    Ask("https://forbidden.test:{tls}/pub", headers={"X-Api-Key": "an-attackers-key"}),
    Ask("https://forbidden.test:{tls}/pub", headers={"X-Other": "PLACEHOLDER"}),
    Ask("https://forbidden.test:{tls}/pub", method="POST", body="so: PLACEHOLDER"),
    Ask("https://forbidden.test:{tls}/pub/PLACEHOLDER"),
    Ask("http://allowed.test:{http}/", headers={"X-Api-Key": "PLACEHOLDER"}),
    Ask("http://allowed.test:{http}/", method="POST", body="so: PLACEHOLDER"),
    Ask("https://PLACEHOLDER.forbidden.test:{tls}/"),
)
REFUSED = ["credential-pinned", *["secret-leak"] * 6]


def test_the_upstream_gets_the_value_and_everything_else_is_refused_and_recorded(runtime: Runtime) -> None:
    ports = runtime.upstream.ports
    asks = [replace(ask, url=ask.url.format(**ports)) for ask in ASKS]
    outcome = session(runtime, PLACEHOLDER + CLIENT, json.dumps([vars(ask) for ask in asks]))
    first, *rest = json.loads(outcome.stdout)
    assert (first["status"], first["headers"]["X-Key-Digest"]) == (200, DIGEST), first
    assert first["headers"]["X-Key"].startswith("[secret api]")
    assert len(first["headers"]["X-Key"]) == len(VALUE)
    assert [answer.get("headers", {}).get("X-Parhelia-Rule") for answer in rest[:-1]] == REFUSED[:-1]
    assert "403" in rest[-1]["error"]  # a tunnel that was refused
    (injected,) = outcome.of("secret.inject")
    assert (injected["resource"], injected["result"], injected["details"]["header"]) == ("api", "success", "x-api-key")
    assert "python3" in injected["details"]["exe"]
    assert [event["details"]["rule"] for event in outcome.of("network.egress_blocked")] == REFUSED
    assert outcome.verified == 0
    written = outcome.stdout + outcome.stderr + "".join(file.read_text() for file in outcome.audit_dir.iterdir())
    assert Needles([("api", VALUE)]).find(written.encode()) is None
    log = "".join(file.read_text() for file in outcome.audit_dir.iterdir())
    assert "parhelia-placeholder-" not in log
    assert base64.b64encode(VALUE.encode()).decode() not in log


class Gateway(http.server.BaseHTTPRequestHandler):
    """Keeps what is pushed."""

    pushed: list[str]

    def do_PUT(self) -> None:
        self.pushed.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(202)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.mark.root
def test_reads_injections_and_leaks_are_counted(host: Host) -> None:
    pushed: list[str] = []
    gateway = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Kept", (Gateway,), {"pushed": pushed}))
    threading.Thread(target=gateway.serve_forever, daemon=True).start()
    asks = [replace(ask, url=ask.url.format(**host.upstream.ports)) for ask in ASKS]
    argv = ("/usr/bin/python3", "-c", PLACEHOLDER + CLIENT, json.dumps([vars(ask) for ask in asks]))
    url = f"http://127.0.0.1:{gateway.server_address[1]}"
    outcome = host.run(Case(argv, POLICY, env={"AGENT_KEY": VALUE, "PARHELIA_PUSHGATEWAY_URL": url}))
    gateway.shutdown()
    gateway.server_close()
    assert outcome.status == 0, outcome.stderr
    lines = pushed[-1].splitlines()
    assert 'parhelia_secrets_accessed_total{action="access",secret_name="api"} 1.0' in lines
    assert 'parhelia_secrets_accessed_total{action="inject",secret_name="api"} 1.0' in lines
    assert 'parhelia_secrets_accessed_total{action="inject",secret_name="spare"} 0.0' in lines
    assert 'parhelia_security_denied_total{event_type="network.egress_blocked"} 7.0' in lines
    assert VALUE not in "".join(pushed)


@pytest.mark.root
@pytest.mark.parametrize(
    ("secrets", "env", "command", "status", "words"),
    [
        (SECRETS, {}, ("id",), 5, "secret api: the variable AGENT_KEY"),
        (SECRETS, {"AGENT_KEY": VALUE}, ("echo", VALUE), 4, "command line holds the secret api"),
        (SECRETS.replace("{env: AGENT_KEY}", "{file: KEYFILE}"), {}, ("id",), 4, "can be read by the session's user"),
    ],
    ids=["missing", "in the command", "readable"],
)
def test_a_secret_that_cannot_be_had_or_kept_ends_the_run(
    host: Host, secrets: str, env: dict[str, str], command: tuple[str, ...], status: int, words: str
) -> None:
    key = Path("/etc") / "parhelia-test-readable-key"
    key.write_text(VALUE)
    key.chmod(0o644)
    try:
        outcome = host.run(Case(command, policy(extra_egress=RULES) + secrets.replace("KEYFILE", str(key)), env=env))
    finally:
        key.unlink()
    assert (outcome.status, words in outcome.stderr) == (status, True), outcome.stderr
    assert outcome.of("session.create") == []
    assert VALUE not in outcome.stdout + outcome.stderr + json.dumps(outcome.events)
