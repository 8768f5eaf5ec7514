"""What lint warns of, and what it leaves alone."""

from __future__ import annotations

import pytest

from agent.policy.load import load_policy
from agent.policy.shared_hosting import SHARED, shared_suffix
from tests.policy.given import layer, policy


@pytest.mark.parametrize(
    ("pattern", "suffix"),
    [
        ("*.github.io", "github.io"),
        ("*.example.github.io", "github.io"),
        ("*.io", "github.io"),
        ("*.s3.eu-west-1.amazonaws.com", "amazonaws.com"),
        ("*.execute-api.amazonaws.com", "execute-api.amazonaws.com"),
        ("*.googleapis.com", "storage.googleapis.com"),
        ("*.windows.net", "blob.core.windows.net"),
        ("*.ngrok.app", "ngrok.app"),
        ("*.trycloudflare.com", "trycloudflare.com"),
        ("example.github.io", None),
        ("*.example.com", None),
        ("*.notgithub.io", None),
    ],
)
def test_a_wildcard_at_above_or_below_shared_hosting_is_known(pattern: str, suffix: str | None) -> None:
    found = shared_suffix(pattern)
    if pattern == "*.io":
        assert found is not None
    else:
        assert (None if found is None else found.suffix) == suffix


def test_every_entry_is_a_normalised_domain_once() -> None:
    suffixes = [entry.suffix for entry in SHARED]
    assert len(set(suffixes)) == len(suffixes)
    assert [policy(f"egress: {{allow: [{suffix}]}}").layers[0].egress.allow[0].pattern for suffix in suffixes] == (  # type: ignore[union-attr]
        suffixes
    )


def test_a_wildcard_over_shared_hosting_is_a_warning_that_says_what_anybody_could_do() -> None:
    (found,) = policy("egress: {allow: ['*.trycloudflare.com']}").warnings
    assert found == (
        "l0/a.yaml:1: '*.trycloudflare.com' takes in trycloudflare.com, where anybody can tunnel it to a machine of "
        "their own: it lets data out to strangers; name the hosts you need, or close what you do not under egress.deny"
    )


@pytest.mark.parametrize("host", ["webhook.site", "s3.eu-west-1.amazonaws.com", "storage.googleapis.com"])
def test_an_exact_host_whose_paths_are_anybodys_is_a_warning(host: str) -> None:
    (found,) = policy(f"egress: {{allow: [{host}]}}").warnings
    assert found.startswith(f"l0/a.yaml:1: '{host}' is a host where anybody can have a ")
    assert policy(f"egress: {{allow: [{{host: {host}, paths: [/mine/**]}}]}}").warnings == ()


@pytest.mark.parametrize(
    "text",
    [
        "egress: {allow: [example.github.io]}",
        "egress: {allow: ['*.github.io'], deny: [evil.github.io]}",
        "egress: {allow: ['*.example.com']}",
    ],
)
def test_exact_hosts_and_wildcards_with_closed_corners_are_left_alone(text: str) -> None:
    assert policy(text).warnings == ()


def test_a_deny_that_only_observes_closes_no_corner() -> None:
    text = "egress: {allow: ['*.github.io'], deny: [{host: evil.github.io, mode: observe}]}"
    assert len(policy(text).warnings) == 1


def test_conditions_beside_a_bundles_plain_allow_are_a_warning() -> None:
    given = load_policy(
        [layer("use: [good]\negress: {allow: [{host: x.test, git: {fetch: a}}, {host: y.test, methods: [GET]}]}")],
        {"good": "version: 1\nallow: ['x.test', {host: y.test, ports: [8443]}]"},
    )
    (found,) = given.warnings
    assert "the conditions of this rule restrict nothing: good/allow.[0] allows all of 'x.test'" in found


def test_conditions_beside_a_rule_that_only_observes_are_a_warning() -> None:
    text = (
        "egress: {allow: [{host: x.test, paths: [/a]}, {id: w, host: '*.test', methods: [GET], mode: observe}, "
        "{host: y.test, ports: [8443], paths: [/a]}]}"
    )
    (found,) = policy(text).warnings
    assert found.startswith("l0/a.yaml:1: the conditions of this rule restrict nothing: w only observes and lets pass")


def test_limits_beside_a_bundles_plain_allow_hold() -> None:
    given = load_policy(
        [layer("use: [good]\negress: {allow: [{host: x.test, limits: {idle: 1}}]}")],
        {"good": "version: 1\nallow: [x.test]"},
    )
    assert given.warnings == ()


@pytest.mark.parametrize(
    ("rules", "mode", "warned"),
    [
        ("{host: x.test, methods: [GET], mode: observe}", "enforce", True),
        ("{host: '*.test', paths: [/a], mode: observe}, {host: x.test, ports: [8443]}", "enforce", True),
        ("{host: x.test, methods: [GET], limits: {idle: 1m}, mode: observe}, {host: x.test}", "enforce", False),
        ("{host: x.test, methods: [GET], mode: observe}", "observe", False),
        ("{host: x.test, methods: [GET]}", "enforce", False),
    ],
)
def test_an_allow_that_only_observes_opens_its_whole_host_and_lint_says_so(rules: str, mode: str, warned: bool) -> None:
    found = policy(f"egress: {{mode: {mode}, allow: [{rules}]}}").warnings
    assert len(found) == warned
    for text in found:
        assert text.startswith("l0/a.yaml:1: this rule only observes: it opens all of '")


_RAW = "{host: '*.corp.example', protocol: tcp, ports: [80, 5432, 8080]}"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("{host: web.corp.example, protocol: http, paths: [/pub/**]}", "can be gone round: egress.allow[0] allows raw"),
        (
            "{host: '*.web.corp.example', protocol: http, methods: [GET], ports: [8080, 81]}",
            "on port 8080, and a tunnel",
        ),
        ("{host: '*.example', protocol: http, limits: {body: 0}}", "on port 80, and a tunnel"),
        ("{host: db.corp.example, ports: [443, 5432]}", "on port 5432 is for TLS by egress.allow[1] and for raw bytes"),
        ("{host: web.corp.example, protocol: http}", None),
        ("{host: web.corp.example, protocol: http, paths: [/pub/**], ports: [81]}", None),
        ("{host: web.example, protocol: http, paths: [/pub/**]}", None),
        ("{host: web.corp.example}", None),
        ("{host: web.corp.example, protocol: tcp, ports: [81]}", None),
    ],
)
def test_raw_bytes_beside_a_rule_for_requests_are_a_warning(rule: str, said: str | None) -> None:
    found = [text for text in policy(f"egress: {{allow: [{_RAW}, {rule}]}}").warnings if "raw bytes" in text]
    if said is None:
        assert found == []
    else:
        assert len(found) == 1
        assert said in found[0]
