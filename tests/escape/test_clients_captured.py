"""Clients that ask no proxy, in the jail that captures: names by the session's name server, connections decided."""

from __future__ import annotations

import json

import pytest

from tests.escape.arena import HostArena, Visit
from tests.escape.test_clients import CURL, PYTHON, Use
from tests.escape.wares import PUBLIC, provide

RANGE = "203.0.113.0/24"
POLICY = f"""\
version: 1
egress:
  allow:
    - {{host: "*.good.test", addresses: [{RANGE}]}}
    - {{host: web.inspect.test, methods: [GET], paths: ["/pub/**"], addresses: [{RANGE}]}}
    - {{host: plain.test, protocol: http, addresses: [{RANGE}]}}
    - {{host: git.shell.test, protocol: tcp, ports: [22], addresses: [{RANGE}]}}
paths:
  write: [/tmp]
  read: [/usr, /bin, /sbin, /lib, /lib64, /etc, /opt, /srv/shared/public]
"""
GOOD, EVIL, SHELL = "203.0.113.10", "203.0.113.11", "203.0.113.12"
NAMES = {
    **{name: [[GOOD]] for name in ("api.good.test", "git.good.test", "web.inspect.test", "plain.test")},
    "api.evil.test": [[EVIL]],
    "git.shell.test": [[SHELL]],
}
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


@pytest.fixture(scope="module")
def visit(host_arena: HostArena) -> Visit:
    """One session that uses them all."""
    if not (host_arena.shared / "public").exists():
        provide(host_arena.shared)
    runner = (host_arena.shared / "public" / "run_all.py").read_text()
    commands = [json.dumps({"argv": use.argv, "env": use.env}) for use in USES]
    return host_arena.visit(POLICY, NAMES, [PYTHON, "-c", runner, *commands])


@pytest.mark.root
@pytest.mark.row(36)
@pytest.mark.parametrize(("number", "use"), list(enumerate(USES)), ids=[use.name for use in USES])
def test_what_a_client_gets(visit: Visit, number: int, use: Use) -> None:
    ended = visit.answers[number]
    if use.refused is None:
        assert ended["status"] == 0, ended
        assert use.shows in ended["out"], ended
    else:
        assert "reached" not in ended["out"]
        assert visit.refused[use.refused] > 0, ended


@pytest.mark.root
def test_what_was_refused_is_on_record_counted_and_nobody_was_reached(visit: Visit) -> None:
    assert set(visit.refused) == {use.refused for use in USES if use.refused is not None}
    assert visit.counted == visit.refused.total()
    assert visit.escapes == []
    assert not [name for name in visit.looked_up if name.endswith(".evil.test")]
    assert visit.outcome.verified == 0
