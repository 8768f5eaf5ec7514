"""A policy's own certificate authority: servers that it certifies are reached, tunnelled and intercepted, and without
it neither."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent
from types import SimpleNamespace

import pytest

from tests.escape.client import Ask, requests
from tests.escape.runtime import Host, Runtime
from tests.escape.upstream import Upstream
from tests.policy.authority import make_certificate

INSPECTED = "    - {host: forbidden.test, ports: [{tls}], methods: [GET], addresses: [127.0.0.0/8]}\n"


@pytest.mark.root
@pytest.mark.parametrize("trusted", [True, False])
def test_servers_that_the_policys_authority_certifies_are_reached(
    tmp_path: Path, upstream: Upstream, host: Host, trusted: bool
) -> None:
    stranger = SimpleNamespace(ports=upstream.ports, certificate_text="")  # the system knows nothing of it
    machine = Host(host.directory, stranger)  # type: ignore[arg-type]
    port = upstream.ports["tls"]
    trust = "  trust:\n    - |\n" + indent(upstream.certificate_text.strip(), "      ") + "\n"
    answers, outcome = requests(
        machine,
        Ask(f"https://allowed.test:{port}/"),
        Ask(f"https://forbidden.test:{port}/"),
        rules=INSPECTED + (trust if trusted else ""),
    )
    if trusted:
        assert [answer.get("status") for answer in answers] == [200, 200], answers
    else:
        assert "CERTIFICATE_VERIFY_FAILED" in answers[0]["error"]
        assert (answers[1]["status"], "certificate" in answers[1]["body"]) == (502, True)
    assert outcome.verified == 0


def test_an_authority_beside_those_of_the_system_takes_none_away(runtime: Runtime) -> None:
    port = runtime.upstream.ports["tls"]
    _, authority = make_certificate("another.test", ca=True)
    answers, _ = requests(
        runtime,
        Ask(f"https://allowed.test:{port}/"),
        Ask(f"https://forbidden.test:{port}/"),
        rules=INSPECTED + "  trust:\n    - |\n" + indent(authority, "      "),
    )
    assert [answer.get("status") for answer in answers] == [200, 200], answers
