"""The JSON Schema agrees with the loader, because both are made of one table."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from agent.policy.json_schema import json_schema
from agent.policy.schema import BUNDLE, DOCUMENT
from agent.policy.schema_patterns import PATTERNS
from agent.policy.shape import ListShape, MapShape, RecordShape, Shape
from tests.policy.given import problems
from tests.policy.test_load import CONTRACT

POLICIES = Path(__file__).parents[2] / "policies"


def as_json(text: str) -> Any:
    """The document as an editor's validator sees it: dates are texts."""

    def plain(value: Any) -> Any:
        match value:
            case dict():
                return {key: plain(entry) for key, entry in value.items()}
            case list():
                return [plain(entry) for entry in value]
            case datetime.date():
                return value.isoformat()
            case _:
                return value

    return plain(yaml.safe_load(text))


def errors(text: str, shape: RecordShape = DOCUMENT) -> list[str]:
    schema = json_schema(shape)
    Draft202012Validator.check_schema(schema)
    return [error.message for error in Draft202012Validator(schema).iter_errors(as_json(text))]


@pytest.mark.parametrize("file", sorted(POLICIES.glob("*.yaml")), ids=lambda file: file.name)
def test_the_shipped_policy_is_valid_by_the_schema(file: Path) -> None:
    assert errors(file.read_text()) == []


@pytest.mark.parametrize("file", sorted((POLICIES / "bundles").glob("*.yaml")), ids=lambda file: file.name)
def test_the_shipped_bundles_are_valid_by_their_schema(file: Path) -> None:
    assert errors(file.read_text(), BUNDLE) == []


def test_the_example_of_the_contract_is_valid_by_the_schema() -> None:
    assert errors(CONTRACT) == []


@pytest.mark.parametrize("file", sorted((POLICIES / "patterns").glob("*.yaml")), ids=lambda file: file.name)
def test_the_shipped_patterns_are_valid_by_their_schema(file: Path) -> None:
    assert errors(file.read_text(), PATTERNS) == []


def test_the_tour_of_the_docs_is_valid_by_the_schema() -> None:
    tour = re.search(r"^```yaml\n(.*?)^```$", (POLICIES.parent / "docs/policy.md").read_text(), re.M | re.S)
    assert tour is not None
    assert errors(tour[1]) == []


@pytest.mark.parametrize(
    "text",
    [
        "egres: {}",
        "version: 2",
        "egress: {mode: no}",
        "egress: {allow: x.test}",
        "egress: {allow: [{ports: [443]}]}",
        "egress: {allow: [{host: x.test, ports: ['443']}]}",
        "egress: {allow: [{host: x.test, methods: [get]}]}",
        "egress: {allow: [{host: x.test, methods: []}]}",
        "egress: {deny: [{host: x.test, addresses: [10.0.0.0/8]}]}",
        "commands: {deny: [{match: {program: /bin/rm}}]}",
        "commands: {deny: [{match: {program: rm}}]}",
        "commands: {deny: [{match: {redirects: [x]}, examples: {match: [a], no_match: [b]}}]}",
        "commands: {unverifiable: allow}",
        "exceptions: [{rule: x}]",
        "exceptions: [{rule: x, owner: o, reason: r, expires: soon}]",
        "session: {env: ['A-B']}",
        "use: pip",
        "egress: {allow: [{host: x.test, limits: {body: 1mb}}]}",
        "egress: {allow: [{host: x.test, limits: {idle: 0}}]}",
        "egress: {allow: [{host: x.test, headers: {}}]}",
        "egress: {allow: [{host: x.test, headers: {a b: c}}]}",
        "egress: {allow: [{host: x.test, query: {a: 1}}]}",
        "egress: {allow: [{host: x.test, scan: 'true'}]}",
        "egress: {allow: [{host: x.test, tls: off}]}",
        "egress: {allow: [{host: x.test, git: {clone: [a]}}]}",
        "egress: {allow: [{host: x.test, credential: {only: true}}]}",
        "egress: {deny: [{host: x.test, scan: true}]}",
        "egress: {limits: {body: 1}}",
        "secrets: [{name: a}]",
        "secrets: {name: a}",
    ],
)
def test_what_the_schema_refuses_the_loader_refuses_too(text: str) -> None:
    assert errors(text) != []
    assert problems(text) != []


def test_every_key_is_documented() -> None:
    def undocumented(shape: Shape, at: str) -> list[str]:
        found = [] if shape.doc else [at]
        match shape:
            case RecordShape():
                for key in shape.keys:
                    found += undocumented(key.shape, f"{at}.{key.name}")
            case MapShape():
                found += undocumented(shape.key, f"{at}.<key>") + undocumented(shape.value, f"{at}.*")
            case ListShape():
                found += undocumented(shape.item, f"{at}[]")
            case _:
                pass
        return found

    assert undocumented(DOCUMENT, "") == []
