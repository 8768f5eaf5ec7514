"""git over ssh from a session, by the ProxyCommand that the agent publishes: a real sshd on loopback."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import require
from tests.escape.runtime import Case, Host, Outcome, policy

SECONDS = 20.0
SCRIPT = """
set -eu
umask 077
printf '%s\\n' "$KEY" > "$HOME/key"
trap 'rm -f "$HOME/key"' EXIT
proxy='/usr/bin/python3 -IS /run/parhelia/ssh_proxy.py %h %p'
quiet='-F none -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=15'
export GIT_SSH_COMMAND="ssh -i $HOME/key $quiet -o ProxyCommand='$proxy'"
cd "$TMPDIR"
for host in allowed.test forbidden.test; do
    if git clone -q "ssh://root@$host:$SSHD/repository" "$host"; then cat "$host/file"; else echo "$host: $?"; fi
done
"""


@dataclass(frozen=True)
class Sshd:
    """An sshd whose one key may do nothing but fetch from one repository."""

    port: int
    key: str


def run(*argv: str, cwd: Path) -> None:
    subprocess.run(argv, cwd=cwd, check=True, capture_output=True)


def repository(where: Path) -> Path:
    where.mkdir()
    run("git", "init", "-q", cwd=where)
    (where / "file").write_text("fetched over ssh\n")
    run("git", "add", "file", cwd=where)
    run("git", "-c", "user.name=t", "-c", "user.email=t@good.test", "commit", "-qm", "one", cwd=where)
    return where


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    for program in ("/usr/sbin/sshd", "/usr/bin/ssh", "/usr/bin/git"):
        require(Path(program).exists(), f"{program} is missing (make test-tools installs it)")
    home = tmp_path / "sshd"
    home.mkdir()
    held = repository(home / "repository")
    for name in ("host", "client"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / name), cwd=home)
    fetch = f"git -c safe.directory='*' upload-pack {held}"
    (home / "keys").write_text(f'restrict,command="{fetch}" {(home / "client.pub").read_text()}')
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lines = [f"ListenAddress 127.0.0.1:{port}", f"HostKey {home}/host", f"AuthorizedKeysFile {home}/keys"]
    lines += ["UsePAM no", "StrictModes no", "PermitRootLogin forced-commands-only", f"PidFile {home}/pid"]
    (home / "config").write_text("\n".join(lines) + "\n")
    # sshd wants its directory in /run: in a mount namespace of its own, so that nothing stays behind
    script = 'mount -t tmpfs none /run && mkdir -m 0755 /run/sshd && exec /usr/sbin/sshd -D -e -f "$0"'
    argv = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script, str(home / "config")]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as process:
        try:
            _until_it_listens(port)
            yield Sshd(port, (home / "client").read_text())
        finally:
            process.terminate()
    shutil.rmtree(home)


def _until_it_listens(port: int) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError("sshd does not listen")


def clone(host: Host, sshd: Sshd, rules: str) -> Outcome:
    """One session that clones from both names."""
    case = Case(
        ("/bin/sh", "-c", SCRIPT),
        policy(extra_egress=rules),
        ("--env", "KEY", "--env", "SSHD"),
        {"KEY": sshd.key, "SSHD": str(sshd.port)},
    )
    return host.run(case)


@pytest.mark.root
def test_git_clones_over_ssh_from_an_allowed_host_and_says_why_from_another_not(host: Host, sshd: Sshd) -> None:
    rule = f"    - {{host: allowed.test, ports: [{sshd.port}], protocol: tcp, addresses: [127.0.0.0/8]}}\n"
    outcome = clone(host, sshd, rule)
    assert outcome.stdout == "fetched over ssh\nforbidden.test: 128\n", outcome.stderr
    said = f"parhelia: denied by egress-default: no rule of the policy allows forbidden.test:{sshd.port} "
    assert said in outcome.stderr
    (allowed,) = outcome.of("network.egress")
    (refused,) = outcome.of("network.egress_blocked")
    assert (allowed["resource"], allowed["details"]["rule"]) == (f"allowed.test:{sshd.port}", "egress.allow[2]")
    assert (refused["resource"], refused["details"]["mechanism"]) == (f"forbidden.test:{sshd.port}", "proxy")
