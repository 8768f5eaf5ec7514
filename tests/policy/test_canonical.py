"""The digest: the same for the same policy, another one for another."""

from __future__ import annotations

import re

import pytest

from tests.policy.given import layer, policy

BASE = """\
egress:
  allow: [a.test, {id: b, host: b.test, methods: [GET, HEAD], ports: [443, 8443]}]
  deny: [c.test]
commands: {deny: [mkfs, {id: rm, match: {program: [rm, shred], operands: [/etc, /usr]}}]}
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
