"""A web client for sessions that may have no curl: Python's own, honouring the proxy and trust variables.

`requests` runs a list of requests in one session; each answer is its status, headers and body, or the error's words.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.escape.runtime import Case, Outcome, Runtime, policy

CLIENT = r"""
import http.client, json, os, ssl, sys
from urllib.parse import urlsplit
answers = []
for wanted in json.loads(sys.argv[1]):
    url = urlsplit(wanted["url"])
    proxy = None if wanted["direct"] else urlsplit(os.environ["HTTPS_PROXY"])
    near = (proxy.hostname, proxy.port) if proxy else (url.hostname, url.port)
    try:
        if url.scheme == "https":
            trust = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
            link = http.client.HTTPSConnection(*near, timeout=30, context=trust)
            if proxy: link.set_tunnel(url.hostname, url.port)
            target = url.path
        else:
            link = http.client.HTTPConnection(*near, timeout=30)
            target = wanted["url"] if proxy else url.path
        link.request(wanted["method"], target, wanted["body"], wanted["headers"])
        answer = link.getresponse()
        answers.append({"status": answer.status, "headers": dict(answer.getheaders()), "body": answer.read().decode()})
        issuer = link.sock and getattr(link.sock, "getpeercert", dict)().get("issuer")
        answers[-1]["issuer"] = str(issuer)
    except Exception as error:
        answers.append({"error": f"{type(error).__name__}: {error}"})
    finally:
        link.close()
print(json.dumps(answers))
"""


@dataclass(frozen=True)
class Ask:
    """One request. `direct`: past the proxy."""

    url: str
    method: str = "GET"
    body: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    direct: bool = False


def requests(runtime: Runtime, *asks: Ask, rules: str = "") -> tuple[list[dict[str, Any]], Outcome]:
    """Make the requests in one session; their answers, and what the session left."""
    wanted = json.dumps([vars(ask) for ask in asks])
    outcome = runtime.run(Case(("/usr/bin/python3", "-c", CLIENT, wanted), policy(extra_egress=rules)))
    assert outcome.status == 0, outcome.stderr
    answers: list[dict[str, Any]] = json.loads(outcome.stdout)
    return answers, outcome
