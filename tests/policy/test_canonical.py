"""The digest: the same for the same policy, another one for another."""

from __future__ import annotations

import re

import pytest

from agent.policy.load import load_policy
from tests.policy.given import layer, policy

BASE = """\
egress:
  allow: [a.test, {id: b, host: b.test, methods: [GET, HEAD], ports: [443, 8443]}]
  deny: [c.test]
commands: {deny: [mkfs, {id: rm, match: {program: [rm, shred], operands: [/etc, /usr]},
  examples: {match: [rm /etc], no_match: [ls]}}]}
paths: {write: [/tmp], read: [/usr, /etc], protect: [.env]}
exceptions: [{rule: rm, match: {program: rm}, owner: o, reason: r, expires: 2027-01-31}]
session: {env: [A, B]}
"""


def test_a_digest_is_lower_case_hex_of_sha_256() -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", policy(BASE).digest)


@pytest.mark.parametrize(
    "same",
    [
        pytest.param(("# a comment\n\nversion: 1\n" + BASE,), id="comments, blank lines and the version"),
        pytest.param((BASE.replace("[a.test, {id: b", "[{id: b").replace("8443]}]", "8443]}, a.test]"),), id="order"),
        pytest.param((BASE.replace("[GET, HEAD]", "[HEAD, GET]").replace("[443, 8443]", "[8443, 443]"),), id="sets"),
        pytest.param((BASE.replace("[/usr, /etc]", "[{path: /usr}, /etc]"),), id="the long form"),
        pytest.param((BASE.replace("a.test", "A.Test."),), id="the spelling of a host"),
        pytest.param((BASE.replace("[a.test,", "[{host: a.test, examples: {match: [a.test]}},"),), id="examples"),
        pytest.param((BASE.replace("session: {env: [A, B]}\n", ""), "session: {env: [B, A]}"), id="another split"),
        pytest.param(
            ("egress: {allow: [a.test]}", BASE.replace("[a.test, {", "[{")), id="files in another order of names"
        ),
    ],
)
def test_the_digest_does_not_change_with_how_it_is_written(same: tuple[str, ...]) -> None:
    assert policy(layer(*same, name="elsewhere")).digest == policy(BASE).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a.test", "z.test"),
        ("a.test,", "{host: a.test, protocol: http},"),
        ("a.test,", "{host: a.test, addresses: [10.0.0.0/8]},"),
        ("a.test,", "{host: a.test, reason: because},"),
        ("a.test,", "{host: a.test, instead: other},"),
        ("a.test,", "{host: a.test, severity: critical},"),
        ("a.test,", "{host: a.test, id: named},"),
        ("[GET, HEAD]", "[GET]"),
        ("8443", "8444"),
        ("deny: [c.test]", "deny: []"),
        ("egress:", "egress:\n  mode: observe"),
        ("mkfs", "mkfs -t ext4"),
        ("program: [rm, shred]", "program: [rm]"),
        ("operands: [/etc, /usr]", "operands: [/etc]"),
        ("commands: {", "commands: {unverifiable: deny, "),
        ("write: [/tmp]", "write: [/var/tmp]"),
        ("protect: [.env]", "protect: [.envrc]"),
        ("protect: [.env]", "protect: [.env], watch: [.envrc]"),
        ("2027-01-31", "2027-02-01"),
        ("owner: o", "owner: p"),
        ("[A, B]", "[A]"),
        ("session:", "audit: {durable: strict}\nsession:"),
    ],
)
def test_the_digest_changes_with_what_it_decides_or_says(old: str, new: str) -> None:
    assert old in BASE
    assert policy(BASE.replace(old, new, 1)).digest != policy(BASE).digest


def test_an_exception_for_a_place_is_digested_by_what_is_there() -> None:
    text = "commands: {deny: [%s]}\nexceptions: [{rule: 'commands.deny[%d]', owner: o, reason: r, expires: 2027-01-31}]"
    first = policy(text % ("mkfs, shred", 0)).digest
    assert policy(text % ("shred, mkfs", 1)).digest == first
    assert policy(text % ("mkfs, shred", 1)).digest != first


def test_layers_are_told_apart_from_files() -> None:
    one, two = "egress: {allow: [a.test]}", "egress: {allow: [b.test]}"
    digests = {policy(layer(one, two)).digest, policy(one, two).digest, policy(two, one).digest}
    assert len(digests) == 3


def test_a_first_layer_without_egress_is_the_same_as_one_that_allows_nothing() -> None:
    assert policy("version: 1").digest == policy("egress: {allow: []}\npaths: {}").digest


def test_a_further_layer_without_a_section_is_not_the_same_as_one_that_allows_nothing() -> None:
    assert policy(BASE, "version: 1").digest != policy(BASE, "egress: {allow: []}").digest


EGRESS = """\
egress:
  limits: {connections: 5}
  allow:
    - {host: a.test, headers: {h: [v, w], i: x}, query: {q: v}, limits: {body: 1KB, idle: 60}}
    - {host: b.test, git: {fetch: [a, b], push: [c]}, credential: {secret: s}}
    - {host: c.test, tls: passthrough}
  deny: [{host: d.test, query: {q: v}}]
secrets:
  - {name: s, from: {command: [/bin/get, a, b]}, hosts: [b.test, a.test], header: [x, y], as: {env: P, file: ~/s}}
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[v, w]", "[w, v]"),
        ("{h: [v, w], i: x}", "{I: [x], H: [v, w]}"),
        ("body: 1KB, idle: 60", "idle: 1m, body: 1000"),
        ("fetch: [a, b]", "fetch: [b, a]"),
        ("{secret: s}", "{secret: s, only: false}"),
        ("[b.test, a.test]", "[a.test, B.test]"),
        ("[x, y]", "[Y, X]"),
        ("tls: passthrough", "tls: passthrough, mode: enforce, scan: false"),
    ],
)
def test_terms_and_secrets_may_be_written_in_other_ways(old: str, new: str) -> None:
    assert old in EGRESS
    assert policy(EGRESS.replace(old, new)).digest == policy(EGRESS).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("connections: 5", "connections: 6"),
        ("connections: 5", "connections_per_minute: 5"),
        ("[v, w]", "[v]"),
        ("i: x", "j: x"),
        ("query: {q: v}, limits", "query: {q: w}, limits"),
        ("query: {q: v}}]", "query: {q: w}}]"),
        ("body: 1KB", "body: 1KiB"),
        ("idle: 60", "idle: 61"),
        ("fetch: [a, b]", "fetch: [a]"),
        ("push: [c]", "push: [d]"),
        ("{secret: s}", "{secret: s, only: true}"),
        (", credential: {secret: s}", ""),
        (", tls: passthrough", ""),
        ("tls: passthrough", "tls: inspect"),
        ("query: {q: v}}]", "query: {q: v}, mode: observe}]"),
        ("[/bin/get, a, b]", "[/bin/get, b, a]"),
        ("{command: [/bin/get, a, b]}", "{env: S}"),
        ("[b.test, a.test]", "[b.test]"),
        ("[x, y]", "[x]"),
        ("env: P", "env: Q"),
        ("file: ~/s", "file: ~/t"),
    ],
)
def test_the_digest_changes_with_every_term_and_every_secret(old: str, new: str) -> None:
    assert old in EGRESS
    assert policy(EGRESS.replace(old, new)).digest != policy(EGRESS).digest


PATTERN = """\
version: 1
patterns:
  - {id: x, description: a shape, regex: 'ab[c]', examples: {match: [abc], no_match: [abd]}}
"""


def test_the_digest_is_of_the_patterns_too_where_uploads_are_scanned() -> None:
    def digest(text: str, pattern: str) -> str:
        return load_policy([layer(text)], patterns=[("p.yaml", pattern)]).digest

    scanned, plain = "egress: {allow: [{host: a.test, scan: true}]}", "egress: {allow: [a.test]}"
    other = PATTERN.replace("[c]", "[ce]")
    assert digest(scanned, PATTERN) != digest(scanned, other)
    assert digest(plain, PATTERN) == digest(plain, other)
