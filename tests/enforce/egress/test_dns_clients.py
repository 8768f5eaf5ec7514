"""Real clients of the name server, through real resolvers, in a namespace where every address is local."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    probe = subprocess.run(["unshare", "-n", "-m", "ip", "link"], capture_output=True, check=False)
    require(probe.returncode == 0, "needs to make a network and a mount namespace")
    program = [sys.executable, "-m", "tests.enforce.egress.dns_namespace", str(tmp_path_factory.mktemp("namespace"))]
    done = subprocess.run(
        ["unshare", "-n", "-m", *program],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("server", ["local", "foreign", "foreign six", "tcp", "search"])
def test_the_c_library_gets_its_answers_from_whichever_server_it_asks(outcome: dict[str, Any], server: str) -> None:
    answers = outcome["clients"][server]
    assert answers["api.good.test"] == ["127.0.0.5", "127.0.0.6", "::1"]
    assert answers["v4.good.test"] == ["127.0.0.7"]
    assert answers["hosts.good.test"] == ["127.0.0.77"], "the agent's own files come first, as for its dials"
    assert answers["missing.good.test"] == socket.EAI_NONAME
    assert answers["empty.good.test"] == socket.EAI_NODATA
    refused = socket.EAI_NONAME if server == "tcp" else socket.EAI_AGAIN  # what glibc makes of REFUSED
    assert answers["evil.test"] == refused


def test_getent_and_node_get_theirs(outcome: dict[str, Any]) -> None:
    assert outcome["clients"]["getent"] == "127.0.0.7"
    require(shutil.which("node"), "node is not installed")
    node = outcome["clients"]["node"]
    assert (node["a"], node["aaaa"]) == (["127.0.0.5", "127.0.0.6"], ["::1"])
    assert (node["txt"], node["refused"]) == ("EREFUSED", "EREFUSED")


def test_upstream_is_asked_for_allowed_names_alone_and_for_addresses_alone(outcome: dict[str, Any]) -> None:
    asked = {line.split()[0] for line in outcome["asked"]}
    assert asked == {"api.good.test", "v4.good.test", "empty.good.test", "missing.good.test"}
    assert {line.split()[1] for line in outcome["asked"]} == {"A", "AAAA"}
    assert outcome["asked"].count("api.good.test A") == 1, "one lookup for all clients"


def test_what_was_refused_is_on_record(outcome: dict[str, Any]) -> None:
    assert {"evil.test:53", "api.good.test:53"} <= set(outcome["denied"])
    assert "evil.test.corp.test:53" in outcome["denied"], "what a search list appends is a name like any other"
