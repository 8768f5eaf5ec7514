"""Clients that ask no proxy, where connections are captured: lookups and connections arrive at the agent and are
decided."""

from __future__ import annotations

import json

import pytest

from tests.escape.arena import Arena, Visit
from tests.escape.conftest import ARENAS
from tests.escape.test_clients import CURL, PYTHON, Use
from tests.escape.wares import PUBLIC, provide

POLICY = """\
version: 1
egress:
  allow:
    - {host: "*.good.test", addresses: [127.0.0.0/8, 203.0.113.0/24]}
    - {host: web.inspect.test, methods: [GET], paths: ["/pub/**"], addresses: [127.0.0.0/8, 203.0.113.0/24]}
    - {host: plain.test, protocol: http, addresses: [127.0.0.0/8, 203.0.113.0/24]}
    - {host: git.shell.test, protocol: tcp, ports: [22], addresses: [127.0.0.0/8, 203.0.113.0/24]}
paths:
  write: [/tmp]
  read: [/usr, /bin, /sbin, /lib, /lib64, /etc, /opt, /srv/shared/public]
"""
FAR = {"good": "203.0.113.10", "evil": "203.0.113.11", "shell": "203.0.113.12"}
"""Where the servers are in a jail, to which loopback is its own; a container without one has them on loopback."""
NEAR = {"good": "127.0.0.1", "evil": "127.0.0.2", "shell": "127.0.0.3"}
NAMES = {
    **dict.fromkeys(("api.good.test", "git.good.test", "web.inspect.test", "plain.test"), "good"),
    "api.evil.test": "evil",
    "git.shell.test": "shell",
}
GOOD, EVIL = "{good}", "{evil}"
VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy")
ALONE = ("env", *(f"--unset={name}" for name in VARIABLES))
SSH = (
    f"ssh -F none -i {PUBLIC}/key -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    " -o LogLevel=ERROR"
)
LOOKUP = ("egress-default", "api.evil.test:53")
USES = [
    Use("node fetch", ("node", f"{PUBLIC}/fetch.mjs", "https://api.good.test/")),
    Use("node fetch inside", ("node", f"{PUBLIC}/fetch.mjs", "https://web.inspect.test/pub/x")),
    Use("node fetch inside denied", ("node", f"{PUBLIC}/fetch.mjs", "https://web.inspect.test/x"),
        refused=("egress-default", "web.inspect.test:443")),
    Use("node fetch denied", ("node", f"{PUBLIC}/fetch.mjs", "https://api.evil.test/"), refused=LOOKUP),
    Use("curl", (*ALONE, *CURL, "https://api.good.test/")),
    Use("curl denied", (*ALONE, *CURL, "https://api.evil.test/"), refused=LOOKUP),
    Use("curl at an address denied",
        (*ALONE, *CURL, "-k", "--resolve", f"api.evil.test:443:{EVIL}", "https://api.evil.test/"),
        refused=("egress-default", "api.evil.test:443")),
    Use("wget of plain HTTP", (*ALONE, "wget", "-q", "-O", "-", "--tries=1", "http://plain.test/x")),
    Use("Go", (*ALONE, f"{PUBLIC}/get", "https://api.good.test/", "http://plain.test/x")),
    Use("Go denied", (*ALONE, f"{PUBLIC}/get", "https://api.evil.test/"), refused=LOOKUP),
    Use("python requests", (*ALONE, PYTHON, f"{PUBLIC}/ask.py", "https://api.good.test/")),
    Use("git over https", (*ALONE, "git", "clone", "--progress", "https://git.good.test/git/project.git", "."), ""),
    Use("git over ssh", ("/bin/sh", "-c", "git clone -q ssh://root@git.shell.test/project.git . && cat hello"),
        env={"GIT_SSH_COMMAND": SSH}),
    Use("ssh to an address denied", (*SSH.split(), f"root@{EVIL}"), refused=("egress-default", f"{EVIL}:22")),
    Use("a static program", (f"{PUBLIC}/direct", GOOD, "80", "GET /x HTTP/1.0\r\nHost: plain.test\r\n\r\n")),
    Use("a static program denied", (f"{PUBLIC}/direct", EVIL, "9999", "anything"),
        refused=("egress-default", f"{EVIL}:9999")),
]  # fmt: skip


@pytest.fixture(scope="module", params=ARENAS[:2])
def capturing(request: pytest.FixtureRequest) -> Arena:
    """The arenas where connections are captured."""
    found: Arena = request.getfixturevalue(request.param)
    return found


def placed(arena: Arena, text: str) -> str:
    for name, address in (FAR if arena.name == "host" else NEAR).items():
        text = text.replace(f"{{{name}}}", address)
    return text


@pytest.fixture(scope="module")
def visit(capturing: Arena) -> Visit:
    """One session that uses them all."""
    if not (capturing.shared / "public").exists():
        provide(capturing.shared)
    runner = (capturing.shared / "public" / "run_all.py").read_text()
    commands = [placed(capturing, json.dumps({"argv": use.argv, "env": use.env})) for use in USES]
    names = {name: [[placed(capturing, f"{{{where}}}")]] for name, where in NAMES.items()}
    return capturing.visit(POLICY, names, [PYTHON, "-c", runner, *commands])


@pytest.mark.row(36)
@pytest.mark.parametrize(("number", "use"), list(enumerate(USES)), ids=[use.name for use in USES])
def test_what_a_client_gets(capturing: Arena, visit: Visit, number: int, use: Use) -> None:
    ended = visit.answers[number]
    if use.refused is None:
        assert ended["status"] == 0, ended
        assert use.shows in ended["out"], ended
    else:
        rule, resource = use.refused
        assert "reached" not in ended["out"]
        assert visit.refused[rule, placed(capturing, resource)] > 0, ended


def test_what_was_refused_is_on_record_counted_and_nobody_was_reached(capturing: Arena, visit: Visit) -> None:
    refused = [use.refused for use in USES if use.refused is not None]
    assert set(visit.refused) == {(rule, placed(capturing, resource)) for rule, resource in refused}
    assert visit.counted == visit.refused.total()
    assert visit.escapes == []
    assert not [name for name in visit.looked_up if name.endswith(".evil.test")]
    assert visit.outcome.verified == 0
