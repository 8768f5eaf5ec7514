"""Secrets: read as written, tied to rules that allow their hosts, and refused where a value could get out."""

from __future__ import annotations

import pytest

from agent.policy.decide import decide
from agent.policy.egress_match import intercepted
from agent.policy.load import load_policy
from agent.policy.model import Credential, Secret, SecretSource, SourceKind, Where
from agent.policy.terms import terms
from tests.policy.given import connect, layer, policy, problems

ALLOW = "egress: {allow: [api.test, '*.wild.test']}\n"


def secret(**other: str) -> str:
    """A file with one secret, some of its keys replaced (an empty text leaves the key out)."""
    keys = {"name": "key", "from": "{env: REAL_KEY}", "hosts": "[api.test]", "header": "X-Api-Key", "as": "{env: KEY}"}
    given = {**keys, **{name.rstrip("_"): value for name, value in other.items()}}
    return f"{ALLOW}secrets: [{{{', '.join(f'{name}: {value}' for name, value in given.items() if value)}}}]"


def test_a_secret_is_read_as_written() -> None:
    text = secret(
        from_="{command: [/usr/bin/get, '--key']}",
        hosts="['*.wild.test', API.test]",
        header="[Authorization, X-Api-Key]",
        as_="{env: KEY, file: ~/.key}",
    )
    (found,) = policy(text).secrets
    assert found == Secret(
        name="key",
        source=SecretSource(SourceKind.COMMAND, ("/usr/bin/get", "--key")),
        hosts=("*.wild.test", "api.test"),
        headers=("authorization", "x-api-key"),
        where=Where("l0/a.yaml", 2, 11),
        env="KEY",
        file="~/.key",
    )
    (found,) = policy(secret(from_="{file: /run/key}")).secrets
    assert found.source == SecretSource(SourceKind.FILE, ("/run/key",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (secret(name="''"), "an empty text where a secret's name (letters"),
        (secret(name=""), "a secret without 'name'; add 'name:'"),
        (secret(from_=""), "a secret without 'from'"),
        (secret(hosts=""), "a secret without 'hosts'"),
        (secret(header=""), "a secret without 'header'"),
        (secret(as_=""), "a secret without 'as'"),
        (secret(from_="{}"), "a secret comes from exactly one place; write one of env, file, command"),
        (secret(from_="{env: A, file: /b}"), "a secret comes from exactly one place"),
        (secret(from_="{value: hunter2}"), "unknown key 'value' in a secret's source"),
        (secret(from_="{file: key}"), "'key' is no normal absolute path"),
        (secret(from_="{file: /a/../b}"), "'/a/../b' is no normal absolute path"),
        (secret(from_="{command: [get]}"), "'get' is no normal absolute path"),
        (secret(from_="{command: []}"), "an empty list; name the program"),
        (secret(as_="{}"), "a placeholder that the session cannot find"),
        (secret(as_="{file: key}"), "'key' is no normal path; write an absolute path, or ~/path"),
        (secret(as_="{file: ~/../key}"), "'~/../key' is no normal path"),
        (secret(as_="{env: PATH}"), "the variable 'PATH' is set by the agent; choose another name"),
        (secret(as_="{env: https_proxy}"), "the variable 'https_proxy' is set by the agent"),
        (secret(as_="{env: LD_PRELOAD}"), "the variable 'LD_PRELOAD' is set by the agent"),
        (secret(header="Host"), "the field 'host' says which host is meant"),
        (secret(header="Transfer-Encoding"), "the field 'transfer-encoding' never reaches the host"),
        (secret(hosts="[]"), "an empty list; name the hosts that the secret is for"),
        (secret(hosts="[other.test]"), "the secret 'key' is for 'other.test', which no rule allows over TLS; add"),
        (secret(hosts="['*.test']"), "the secret 'key' is for '*.test', which no rule allows over TLS"),
        (secret(hosts="['*.github.io']"), "'*.github.io' is shared hosting (anybody can publish a site there)"),
        (secret() + "\nsession: {env: [KEY]}", "session.env passes the variable 'KEY' on to the session"),
        (secret() + "\nsession: {env: [REAL_KEY]}", "'REAL_KEY' on to the session, with its real value; remove"),
        (
            secret().replace("api.test,", "{host: api.test, protocol: http},"),
            "'api.test', which no rule allows over TLS",
        ),
        (
            secret().replace("api.test,", "{host: api.test, tls: passthrough},"),
            "passthrough for 'api.test', which gets the secret 'key'",
        ),
        (
            secret().replace("api.test,", "{host: api.test, credential: {secret: kye}},"),
            "there is no secret 'kye'; the secrets are: key",
        ),
        (
            secret().replace("'*.wild.test'", "{host: b.test, credential: {secret: key}}"),
            "the secret 'key' is not for 'b.test'; add 'b.test' to its hosts (p/a.yaml:2)",
        ),
        ("egress: {allow: [{host: a.test, credential: {secret: key}}]}", "there is no secret 'key'; the secrets are"),
        ("secrets: [{}]", "a secret without 'name'"),
    ],
)
def test_a_mistake_about_a_secret_is_an_error_with_its_fix(text: str, expected: str) -> None:
    found = problems(text)
    assert any(expected in problem for problem in found), found


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ("{name: key, from: {env: B}, as: {env: C}", "two secrets with the name 'key' (first in p/a.yaml:2)"),
        ("{name: b, from: {env: B}, as: {env: KEY}", "two secrets with the variable 'KEY'"),
    ],
)
def test_two_secrets_share_neither_name_nor_place(second: str, expected: str) -> None:
    found = problems(secret(), f"secrets: [{second}, hosts: [api.test], header: a}}]")
    assert any(expected in problem for problem in found), found


def test_only_the_first_layer_has_secrets() -> None:
    with pytest.raises(ValueError, match="secrets in a further layer; move it to the first layer"):
        policy(ALLOW, secret())


def test_a_credential_of_a_further_layer_is_tied_to_the_secrets_of_the_first() -> None:
    pinned = "egress: {allow: [{host: api.test, credential: {secret: key, only: true}}]}"
    decision = decide(policy(secret(), pinned), connect("api.test"))
    assert terms(decision).credentials == (Credential("key", only=True),)
    with pytest.raises(ValueError, match="there is no secret 'key'"):
        policy(ALLOW, pinned)


def test_a_host_of_a_secret_is_looked_into_and_no_other() -> None:
    given = policy(secret(hosts="[api.test, a.wild.test]"))
    assert intercepted(given) == ("a.wild.test", "api.test")
    assert [decide(given, connect(host)).inspect for host in ("api.test", "a.wild.test", "b.wild.test")] == [
        True,
        True,
        False,
    ]


def test_a_file_of_a_secret_in_a_granted_tree_is_a_warning() -> None:
    paths = "\npaths: {read: [/etc]}"
    (found,) = policy(secret(from_="{file: /etc/key}") + paths).warnings
    assert "the file of the secret 'key' lies in /etc, which the session may read; keep it elsewhere" in found
    assert policy(secret(from_="{file: /run/key}") + paths).warnings == ()


# what a bundle offers for a secret

BUNDLE = "version: 1\nallow: [{host: api.test, credential: {secret: key, only: true, optional: true}}]"


def bundled(text: str) -> tuple[tuple[Credential, ...], bool, tuple[str, ...]]:
    given = load_policy([layer(text)], {"good": BUNDLE})
    decision = decide(given, connect("api.test"))
    return terms(decision).credentials, decision.inspect, intercepted(given)


def test_without_its_secret_a_bundles_credential_changes_nothing_and_nothing_is_looked_into() -> None:
    assert bundled("use: [good]") == ((), False, ())


def test_with_its_secret_a_bundles_credential_is_pinned() -> None:
    rest = "secrets: [{name: key, from: {env: A}, hosts: [api.test], header: x-key, as: {env: B}}]"
    assert bundled(f"use: [good]\n{rest}") == ((Credential("key", only=True),), True, ("api.test",))
    # a plain rule of the policy's own beside it takes nothing away
    own = f"use: [good]\negress: {{allow: [api.test]}}\n{rest}"
    assert bundled(own)[:2] == ((Credential("key", only=True),), True)


def test_a_secret_of_that_name_for_another_host_is_not_the_bundles() -> None:
    rest = "secrets: [{name: key, from: {env: A}, hosts: [b.test], header: x-key, as: {env: B}}]"
    assert bundled(f"use: [good]\negress: {{allow: [b.test]}}\n{rest}") == ((), False, ("b.test",))
