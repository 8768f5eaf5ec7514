"""Real work through the agent: pip and npm download from the real indexes, and the agent's own byte count proves the
way."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
import ssl
import subprocess
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import require
from tests.escape.runtime import Case, Host

INDEX = "pypi.org"  # of the default policy
PACKAGE = "six"
NPM = "/usr/lib/node_modules/npm/bin/npm-cli.js"
NPM_PACKAGE = "is-number"
CONFIGURED_CA = "/etc/ssl/certs/ca-certificates.crt"


def file_host() -> tuple[str, int]:
    """Where the index keeps its files, and the size of the smallest wheel, as the index itself says (PEP 691)."""
    request = urllib.request.Request(
        f"https://{INDEX}/simple/{PACKAGE}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
    )
    trust = ssl.create_default_context(cafile=CONFIGURED_CA if Path(CONFIGURED_CA).exists() else None)
    with urllib.request.urlopen(request, timeout=30, context=trust) as answer:
        files = json.load(answer)["files"]
    wheels = [file for file in files if file["filename"].endswith(".whl")]
    return str(urlsplit(wheels[-1]["url"]).hostname), min(int(file.get("size") or 1) for file in wheels)


def fetched(url: str) -> bytes:
    trust = ssl.create_default_context(cafile=CONFIGURED_CA if Path(CONFIGURED_CA).exists() else None)
    with urllib.request.urlopen(url, timeout=30, context=trust) as answer:
        found: bytes = answer.read()
        return found


def granted(host: str) -> str:
    """A policy line for this host; where it resolves to a range that is not public, that range is granted."""
    ranges = set()
    for _, _, _, _, address in socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM):
        found = ipaddress.ip_address(str(address[0]))
        if not found.is_global:
            ranges.add(str(ipaddress.ip_network(f"{found}/{24 if found.version == 4 else 64}", strict=False)))
    return f"    - {{host: {host}, addresses: [{', '.join(sorted(ranges))}]}}\n" if ranges else f"    - {host}\n"


@pytest.mark.network
def test_pip_downloads_from_the_real_index_through_the_agent(host: Host, tmp_path: Path) -> None:
    require(Path("/usr/lib/python3/dist-packages/pip").is_dir(), "Debian's python3-pip is not installed")
    files, size = file_host()
    text = "version: 1\negress:\n  allow:\n" + "".join(granted(name) for name in dict.fromkeys((INDEX, files)))
    text += "paths:\n  write: [/tmp]\n  read: [/usr, /bin, /sbin, /lib, /lib64, /etc, /opt]\n"
    pip = "/usr/bin/python3 -m pip --isolated download --no-cache-dir --no-deps --progress-bar off"
    script = f'd=$(mktemp -d) && {pip} -d "$d" {PACKAGE} && ls -l "$d" && sha256sum "$d"/*'
    outcome = host.run(Case(("/bin/sh", "-c", script), text))
    assert outcome.status == 0, outcome.stdout + outcome.stderr
    assert re.search(rf"{PACKAGE}-[\d.]+.*\.whl", outcome.stdout), outcome.stdout
    reached = {event["details"]["host"] for event in outcome.of("network.egress")}
    assert {INDEX, files} <= reached
    assert outcome.of("session.terminate")[0]["details"]["bytes_down"] > size
    assert outcome.verified == 0


@pytest.mark.network
def test_npm_installs_from_the_real_registry_through_the_agent(host: Host) -> None:
    require(Path(NPM).exists(), "npm is not installed")
    asked = subprocess.run(["node", NPM, "config", "get", "registry"], capture_output=True, text=True, check=True)
    registry = asked.stdout.strip()
    size = len(fetched(json.loads(fetched(f"{registry}{NPM_PACKAGE}/latest"))["dist"]["tarball"]))
    name = str(urlsplit(registry).hostname)
    text = "version: 1\negress:\n  allow:\n" + granted(name)
    text += "paths:\n  write: [/tmp]\n  read: [/usr, /bin, /sbin, /lib, /lib64, /etc, /opt]\n"
    npm = f"node {NPM} install {NPM_PACKAGE} --registry {registry} --no-audit --no-fund --no-update-notifier"
    script = f'cd "$(mktemp -d)" && {npm} --cache "$PWD/cache" --prefix "$PWD" && cat node_modules/*/package.json'
    outcome = host.run(Case(("/bin/sh", "-c", script), text))
    assert outcome.status == 0, outcome.stdout + outcome.stderr
    assert f'"name": "{NPM_PACKAGE}"' in outcome.stdout
    assert {event["details"]["host"] for event in outcome.of("network.egress")} == {name}
    assert outcome.of("session.terminate")[0]["details"]["bytes_down"] > size
    assert outcome.verified == 0


@pytest.mark.network
def test_without_the_grant_of_its_range_the_index_is_refused_by_class(host: Host) -> None:
    if granted(INDEX) == f"    - {INDEX}\n":
        text, rule = "version: 1\negress: {allow: [nothing.test]}\n", "egress-default"
    else:
        text, rule = f"version: 1\negress: {{allow: [{INDEX}]}}\n", "egress-address"
    text += "paths:\n  write: [/tmp]\n  read: [/usr, /bin, /sbin, /lib, /lib64, /etc, /opt]\n"
    script = f"curl -sS --max-time 20 https://{INDEX}/ -o /dev/null; echo status=$?"
    outcome = host.run(Case(("/bin/sh", "-c", script), text))
    assert "status=0" not in outcome.stdout
    assert [event["details"]["rule"] for event in outcome.of("network.egress_blocked")] == [rule]
