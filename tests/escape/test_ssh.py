"""git over ssh from a session, to a real sshd: by the ProxyCommand that the agent publishes, and captured."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import held_port, require
from tests.escape.outside import SERVER
from tests.escape.runtime import Case, Host, Outcome, policy

BY_PROXY = "/usr/bin/python3 -IS /run/parhelia/ssh_proxy.py %h %p"
DIRECTLY = "none"
SCRIPT = """
set -eu
umask 077
printf '%s\\n' "$KEY" > "$HOME/key"
trap 'rm -f "$HOME/key"' EXIT
quiet='-F none -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=15'
export GIT_SSH_COMMAND="ssh -i $HOME/key $quiet -o ProxyCommand='$BY'"
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


@contextlib.contextmanager
def serving(home: Path, address: str, port: int, prefix: Sequence[str] = ()) -> Iterator[Sshd]:
    """An sshd that listens there; `prefix` starts it in another network namespace."""
    for program in ("/usr/sbin/sshd", "/usr/bin/ssh", "/usr/bin/git"):
        require(Path(program).exists(), f"{program} is missing (container/test-tools.sh installs it)")
    home.mkdir()
    held = repository(home / "repository")
    for name in ("host", "client"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / name), cwd=home)
    fetch = f"git -c safe.directory='*' upload-pack {held}"
    (home / "keys").write_text(f'restrict,command="{fetch}" {(home / "client.pub").read_text()}')
    lines = [f"ListenAddress {address}:{port}", f"HostKey {home}/host", f"AuthorizedKeysFile {home}/keys"]
    lines += ["UsePAM no", "StrictModes no", "PermitRootLogin forced-commands-only", f"PidFile {home}/pid"]
    (home / "config").write_text("\n".join(lines) + "\n")
    # sshd wants its directory in /run: in a mount namespace of its own, so that nothing stays behind
    script = 'mount -t tmpfs none /run && mkdir -m 0755 /run/sshd && exec /usr/sbin/sshd -D -e -f "$0"'
    private = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script, str(home / "config")]
    with subprocess.Popen([*prefix, *private], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = next((line for line in process.stderr if "listening on" in line), None)
            assert said, "sshd does not listen"
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield Sshd(port, (home / "client").read_text())
        finally:
            process.terminate()
    shutil.rmtree(home)


def clone(host: Host, sshd: Sshd, by: str, given: str) -> Outcome:
    """One session that clones from both names."""
    case = Case(
        ("/bin/sh", "-c", SCRIPT),
        given,
        ("--env", "KEY", "--env", "SSHD", "--env", "BY"),
        {"KEY": sshd.key, "SSHD": str(sshd.port), "BY": by},
    )
    return host.run(case)


def of_host(outcome: Outcome, host: str) -> list[dict[str, Any]]:
    """The refusals for it; programs look up this machine's own name, too, which is refused as well."""
    return [event for event in outcome.of("network.egress_blocked") if event["details"]["host"] == host]


@pytest.mark.root
def test_git_clones_over_ssh_where_connections_are_captured_without_any_proxy_setting(outside_host: Host) -> None:
    assert outside_host.outside is not None
    rule = "    - {host: allowed.test, ports: [22], protocol: tcp, addresses: [203.0.113.0/24]}\n"
    given = policy(extra_egress=rule).replace("127.0.0.0/8", "203.0.113.0/24")
    home = outside_host.directory / "sshd"
    with serving(home, SERVER, 22, outside_host.outside.command_prefix) as sshd:
        outcome = clone(outside_host, sshd, DIRECTLY, given)
    assert outcome.stdout == "fetched over ssh\nforbidden.test: 128\n", outcome.stderr
    (allowed,) = outcome.of("network.egress")
    assert (allowed["resource"], allowed["details"]["mechanism"]) == ("allowed.test:22", "capture")
    assert allowed["details"]["captured"] == f"{SERVER}:22"
    (refused, *_) = of_host(outcome, "forbidden.test")
    assert (refused["details"]["mechanism"], refused["result"]) == ("dns", "denied")


@pytest.mark.root
def test_git_clones_over_ssh_from_an_allowed_host_and_says_why_from_another_not(host: Host) -> None:
    with held_port() as port:
        rule = f"    - {{host: allowed.test, ports: [{port}], protocol: tcp, addresses: [127.0.0.0/8]}}\n"
        with serving(host.directory / "sshd", "127.0.0.1", port) as sshd:
            outcome = clone(host, sshd, BY_PROXY, policy(extra_egress=rule))
    assert outcome.stdout == "fetched over ssh\nforbidden.test: 128\n", outcome.stderr
    said = f"parhelia: denied by egress-default: no rule of the policy allows forbidden.test:{port} "
    assert said in outcome.stderr
    (allowed,) = outcome.of("network.egress")
    (refused,) = of_host(outcome, "forbidden.test")
    assert (allowed["resource"], allowed["details"]["rule"]) == (f"allowed.test:{port}", "egress.allow[2]")
    assert (refused["resource"], refused["details"]["mechanism"]) == (f"forbidden.test:{port}", "proxy")
