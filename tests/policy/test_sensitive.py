"""Which accesses `paths.audit` has recorded, and the names of sensitive files."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.policy.model import Audited
from agent.policy.paths import is_normal
from agent.policy.sensitive import IN_HOMES, MACHINE, sensitive
from tests.policy.given import policy, problems

WRITES, READS = Audited.WRITES, Audited.READS


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("none", frozenset()),
        ("writes", {WRITES}),
        ("reads", {READS}),
        ("[reads]", {READS}),
        ("[writes, reads]", {WRITES, READS}),
        ("[none]", frozenset()),
    ],
)
def test_what_is_audited_is_one_kind_or_a_list(said: str, meant: frozenset[Audited]) -> None:
    found = policy(f"paths: {{audit: {said}}}")
    assert found.layers[0].paths is not None
    assert found.layers[0].paths.audit == meant
    assert (found.audits_writes, found.audits_reads) == (WRITES in meant, READS in meant)


@pytest.mark.parametrize(
    "said", ["read", "[writes, executes]", "[]", "true", "[none, reads]", "{writes: true}", "[[writes]]"]
)
def test_anything_else_is_a_problem(said: str) -> None:
    assert problems(f"paths: {{audit: {said}}}")


def test_the_order_and_the_form_change_no_digest_and_what_is_audited_does() -> None:
    digests = [
        policy(f"paths: {{audit: {said}}}").digest
        for said in ("writes", "[writes]", "[writes, reads]", "[reads, writes]")
    ]
    assert digests[0] == digests[1] != digests[2] == digests[3]


def test_what_layers_name_as_sensitive_adds_up_and_is_told_apart_by_the_digest() -> None:
    texts = ("paths: {sensitive: [/srv/keys]}", "paths: {sensitive: [{id: token, path: /opt/token}]}")
    assert policy(*texts).sensitive == ("/srv/keys", "/opt/token")
    assert policy("paths: {read: [/usr]}").sensitive == ()
    assert len({policy(text).digest for text in (*texts, "paths: {}")}) == 3


@pytest.mark.parametrize("path", ["/", "keys", "~/.keys", "/srv/*", "/srv/", "/srv/../etc"])
def test_what_is_sensitive_is_an_absolute_file_or_tree(path: str) -> None:
    assert problems(f"paths: {{sensitive: ['{path}']}}")


def test_sensitive_names_are_absolute_normal_and_each_there_once() -> None:
    names = sensitive(["/root", "/home/a"])
    assert len({name.rstrip("/") for name in names}) == len(names)
    assert [name for name in names if not is_normal(name.removesuffix("/"))] == []
    assert {"/etc/shadow", "/root/.ssh/id_ed25519", "/home/a/.aws/credentials"} <= {*names}


def test_the_policy_docs_list_them_all() -> None:
    page = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
    table = page.partition("### Denied reads on record")[2].partition("\n## ")[0]
    assert [name for name in (*MACHINE, *IN_HOMES) if f"`{name}`" not in table] == []
