"""Real clients, each allowed and denied, by the session's proxy variables: what they get, what the log says, who was
reached."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from tests.escape.arena import Arena, Visit
from tests.escape.wares import PUBLIC, WHEEL, provide

POLICY = """\
version: 1
egress:
  allow:
    - {host: "*.good.test", addresses: [127.0.0.0/8]}
    - {host: web.inspect.test, methods: [GET, HEAD], paths: ["/pub/**"], addresses: [127.0.0.0/8]}
    - {host: plain.test, protocol: http, addresses: [127.0.0.0/8]}
    - {host: git.shell.test, protocol: tcp, ports: [22], addresses: [127.0.0.0/8]}
paths:
  write: [/tmp]
  read: [/usr, /bin, /sbin, /lib, /lib64, /etc, /opt, /srv/shared/public]
"""
NAMES = {
    **{f"{name}.good.test": [["127.0.0.1"]] for name in ("api", "git", "npm", "pip")},
    **{name: [["127.0.0.1"]] for name in ("web.inspect.test", "plain.test")},
    "git.shell.test": [["127.0.0.3"]],
    **{f"{name}.evil.test": [["127.0.0.2"]] for name in ("api", "git", "npm", "pip")},
}
EVIL = ("egress-default", "api.evil.test:443")
INSIDE = ("egress-default", "web.inspect.test:443")


@dataclass(frozen=True)
class Use:
    """One client at work. `refused`: (rule, resource) of the log, None where it is allowed. `shows`: in its output."""

    name: str
    argv: tuple[str, ...]
    shows: str = "reached "
    refused: tuple[str, str] | None = None
    env: dict[str, str] = field(default_factory=dict)


def pair(name: str, *argv: str, **more: str) -> list[Use]:
    """The same, of an allowed host and of a denied one."""
    denied = tuple(word.replace(".good.test", ".evil.test") for word in argv)
    host = next(word for word in ("api", "git", "npm", "pip") if any(f"{word}.good.test" in part for part in argv))
    allowed = Use(f"{name} allowed", argv, **more)  # type: ignore[arg-type]
    return [allowed, Use(f"{name} denied", denied, refused=("egress-default", f"{host}.evil.test:443"))]


def npm(registry: str) -> tuple[str, ...]:
    script = (
        f"node {PUBLIC}/npm/bin/npm-cli.js install tiny --registry {registry} --cache $PWD/cache --prefix $PWD"
        " --fetch-retries 0 --no-audit --no-fund --no-update-notifier && cat node_modules/tiny/index.js"
    )
    return ("/bin/sh", "-c", script)


def pip(index: str) -> tuple[str, ...]:
    options = "--isolated download --no-cache-dir --no-deps --progress-bar off --retries 0 --disable-pip-version-check"
    return ("/bin/sh", "-c", f"/usr/bin/python3 -m pip {options} -d . --index-url {index} tiny && ls")


def ssh(host: str) -> tuple[str, ...]:
    """By the ProxyCommand of the image's own configuration, or as the docs say where there is none."""
    published = "-o ProxyCommand='/usr/bin/python3 -IS /run/parhelia/ssh_proxy.py %h %p'"
    script = (
        f'[ -e /etc/ssh/ssh_config.d/50-parhelia.conf ] || way="{published}"; '
        f'export GIT_SSH_COMMAND="ssh -i {PUBLIC}/key -o BatchMode=yes -o StrictHostKeyChecking=no '
        f'-o UserKnownHostsFile=/dev/null $way"; git clone -q ssh://root@{host}/project.git . && cat hello'
    )
    return ("/bin/sh", "-c", script)


PYTHON = "/usr/bin/python3"
SOCKS = "socks5h://${HTTPS_PROXY#http://}"
CURL = ("curl", "-sS", "--max-time", "20")
USES = [
    *pair("curl", *CURL, "https://api.good.test/"),
    *pair("curl by SOCKS", "/bin/sh", "-c", f"{' '.join(CURL)} --proxy {SOCKS} https://api.good.test/"),
    *pair("wget", "wget", "-q", "-O", "-", "--tries=1", "--timeout=20", "https://api.good.test/"),
    *pair("python requests", PYTHON, f"{PUBLIC}/ask.py", "https://api.good.test/"),
    *pair("node by a tunnel of its own", "node", f"{PUBLIC}/tunnel.mjs", "api.good.test", "/"),
    *pair("a static Go program", f"{PUBLIC}/get", "https://api.good.test/"),
    *pair("git over https", "/bin/sh", "-c", "git clone -q https://git.good.test/git/project.git . && cat hello"),
    Use("git over ssh", ssh("git.shell.test")),
    Use("git over ssh denied", ssh("git.evil.test"), refused=("egress-default", "git.evil.test:22")),
    *pair("npm", *npm("https://npm.good.test/files/npm/"), shows="tiny"),
    *pair("pip", *pip("https://pip.good.test/files/simple/"), shows=WHEEL),
    Use("curl of plain HTTP", (*CURL, "http://plain.test/x")),
    Use("curl of plain HTTP denied", (*CURL, "--fail", "http://api.evil.test/x"),
        refused=("egress-default", "api.evil.test:80")),
    *pair("a WebSocket in a tunnel", PYTHON, f"{PUBLIC}/websocket.py", "api.good.test", "/ws", "reached by frames"),
    Use("a WebSocket inside", (PYTHON, f"{PUBLIC}/websocket.py", "web.inspect.test", "/pub/ws", "reached by frames")),
    Use("a WebSocket inside denied", (PYTHON, f"{PUBLIC}/websocket.py", "web.inspect.test", "/", "x"), refused=INSIDE),
    Use("HTTP/2 in a tunnel", (*CURL, "--http2", "https://api.good.test/"), "reached api.good.test by h2"),
    Use("HTTP/2 inside", (*CURL, "--http2", "-w", "%{http_version}", "https://web.inspect.test/pub/x"), "h2\n2"),
    Use("HTTP/2 inside denied", (*CURL, "--http2", "--fail", "https://web.inspect.test/x"), refused=INSIDE),
    Use("Go inside", (f"{PUBLIC}/get", "https://web.inspect.test/pub/x")),
    Use("python requests inside", (PYTHON, f"{PUBLIC}/ask.py", "https://web.inspect.test/pub/x")),
    Use("node inside", ("node", f"{PUBLIC}/tunnel.mjs", "web.inspect.test", "/pub/x")),
]  # fmt: skip


@pytest.fixture(scope="module")
def visit(arena: Arena) -> Visit:
    """One session that uses them all."""
    if not (arena.shared / "public").exists():
        provide(arena.shared)
    runner = (arena.shared / "public" / "run_all.py").read_text()
    commands = [json.dumps({"argv": use.argv, "env": use.env}) for use in USES]
    return arena.visit(POLICY, NAMES, [PYTHON, "-c", runner, *commands])


@pytest.mark.parametrize(("number", "use"), list(enumerate(USES)), ids=[use.name for use in USES])
def test_what_a_client_gets(visit: Visit, number: int, use: Use) -> None:
    ended = visit.answers[number]
    if use.refused is None:
        assert ended["status"] == 0, ended
        assert use.shows in ended["out"], ended
    else:
        assert ended["status"] not in (0, 124, 126), ended
        assert visit.refused[use.refused] > 0


def test_what_was_refused_is_on_record_counted_and_nobody_was_reached(visit: Visit) -> None:
    assert set(visit.refused) == {use.refused for use in USES if use.refused is not None}
    assert visit.counted == visit.refused.total()
    assert visit.escapes == []
    assert not [name for name in visit.looked_up if name.endswith(".evil.test")]
    assert visit.outcome.verified == 0
