"""The docs' tables are the code's: event types, kinds of breaks, built-in rules, exit codes, verbs, variables."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from datetime import date
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.cli.main import VERBS
from agent.daemon.control.verbs import ControlVerbs
from agent.daemon.policies.store import PackFiles, read_policy
from agent.describe import describe
from agent.enforce.commands.hook_protocols import ABOUT
from agent.exits import Exit
from agent.policy.decide import decide
from agent.policy.decision import Decision, Verdict
from agent.policy.load import LayerSource, load_policy
from agent.policy.model import CommandMatch
from agent.policy.path_classes import CLASSES
from agent.policy.request import Access, CommandRequest, EgressRequest, Origin, PathRequest, Stage
from agent.policy.rule_ids import RESERVED
from agent.policy.schema import DOCUMENT
from agent.policy.self_protection import RULES
from agent.record.chain import Kind
from agent.record.event import EventType
from agent.shell.requests import from_text
from tests.session import seccomp_page

ROOT = Path(__file__).parents[1]


def section(file: str, heading: str) -> str:
    """The text under a heading, up to the next one of the same or a higher rank."""
    text = (ROOT / file).read_text()
    rank = heading.split(" ", maxsplit=1)[0]
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(rank)}}} |\Z)", text, re.M | re.S)
    assert found, f"{file} has no heading {heading!r}"
    return found[1]


def first_cells(text: str) -> list[str]:
    """What stands in backquotes in the first cell of each row."""
    return re.findall(r"^\| `([^`]+)`", text, re.M)


def test_the_audit_docs_list_every_event_type_once() -> None:
    listed = first_cells(section("docs/audit-log.md", "## Event types"))
    assert sorted(listed) == sorted(event_type.value for event_type in EventType)


def test_an_event_type_is_marked_later_exactly_where_nothing_in_the_agent_writes_it() -> None:
    sources = "\n".join(
        path.read_text()
        for path in (ROOT / "agent").rglob("*.py")
        if path.name not in {"event.py", "metrics.py", "coalesce.py", "verify.py"}
    )
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", section("docs/audit-log.md", "## Event types"), re.M)
    unwritten = {str(kind) for kind in EventType if f"EventType.{kind.name}" not in sources}
    assert {kind for kind, text in rows if text.startswith("later")} == unwritten


def test_the_audit_docs_list_every_kind_of_break_once() -> None:
    assert sorted(first_cells(section("docs/audit-log.md", "## Verification"))) == sorted(Kind)


def test_the_audit_docs_name_every_detail_of_a_decided_request() -> None:
    origin = Origin("x", 1, 2, 3, "/x", ("x",), "127.0.0.1", 4, "r")
    day = date(2026, 11, 22)
    requests = (
        EgressRequest(
            "x.test",
            443,
            day,
            origin,
            stage=Stage.CONNECT,
            addresses=("192.0.2.1",),
            method="GET",
            path="/",
            sni="x.test",
        ),
        CommandRequest("rm", (), day, origin, unverifiable="why"),
        PathRequest(Access.READ, "/x", day, origin, asked="/y"),
    )
    decision = Decision(Verdict.DENY, "rule", "reason", "d" * 64, where="p.yaml:1", enforced=False)
    named = set(re.findall(r"`(\w+)`", section("docs/audit-log.md", "## A line")))
    for request in requests:
        event = describe(request, decision, "session:x")
        assert event is not None
        assert set(event.details) - named == set()
    sources = "\n".join(path.read_text() for path in (ROOT / "agent" / "enforce").rglob("*.py"))
    extra = set(re.findall(r"\(\(?\"(\w+)\", (?:host_and_port|shown|type_name|protocol|\"udp\")", sources))
    assert {"captured", "qtype", "transport"} <= extra
    assert (extra | {"tool", "protocol", *ABOUT.values()}) - named == set()


def details_written(tree: ast.AST) -> Iterator[str]:
    """The keys of what a module calls `details`."""
    for node in ast.walk(tree):
        match node:
            case (
                ast.AnnAssign(target=ast.Name("details"), value=ast.expr() as value)
                | ast.Assign(targets=[ast.Name("details")], value=value)
                | ast.AugAssign(target=ast.Name("details"), value=value)
                | ast.keyword(arg="details", value=value)
            ):
                keys = [key for each in ast.walk(value) if isinstance(each, ast.Dict) for key in each.keys]
                yield from (key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str))
            case ast.Subscript(value=ast.Name("details"), slice=ast.Constant(str(key)), ctx=ast.Store()):
                yield key


@cache
def modules() -> list[ast.Module]:
    return [ast.parse(path.read_text()) for path in (ROOT / "agent").rglob("*.py")]


def test_the_audit_docs_name_every_detail_that_is_written_in_the_agent() -> None:
    written = {key for module in modules() for key in details_written(module)}
    assert {"exit_status", "sidecar", "measures", "count", "role"} <= written
    assert written - set(re.findall(r"`(\w+)`", (ROOT / "docs/audit-log.md").read_text())) == set()


def test_the_policy_docs_list_every_built_in_rule_once() -> None:
    built_in = RESERVED | {rule.id for rule in RULES}
    assert built_in <= set(first_cells(section("docs/policy.md", "## Rules that are the agent's own")))


REFUSALS = {"own_decision", "Refusal", "Refused", "refuse", "refusal", "_record", "HelloError"}
"""What refuses under a rule's id that stands in the call."""


def refused_under(module: ast.Module) -> Iterator[str]:
    for call in (node for node in ast.walk(module) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if name in REFUSALS:
            words = [word.value for word in call.args if isinstance(word, ast.Constant)]
            yield from (word for word in words if isinstance(word, str) and re.fullmatch("[a-z]+(-[a-z]+)+", word))


def test_the_policy_docs_name_every_rule_id_that_an_enforcement_point_refuses_under() -> None:
    used = {rule for module in modules() for rule in refused_under(module)}
    assert {"exec-race", "unix-socket", "tls-malformed", "dns-type", "method-override"} <= used
    named = section("docs/policy.md", "## Rules that are the agent's own")
    assert {rule for rule in used if f"`{rule}`" not in named} == set()


def test_the_page_of_the_filter_is_what_the_table_says() -> None:
    """`python -m tests.session.seccomp_page` writes it anew."""
    assert seccomp_page.DOCUMENT.read_text() == seccomp_page.render()


def test_the_tour_of_a_policy_file_shows_every_section() -> None:
    tour = re.search(r"^```yaml\n(.*?)^```$", section("docs/policy.md", "## A tour"), re.M | re.S)
    assert tour
    assert set(re.findall(r"^(\w+):", tour[1], re.M)) == {key.name for key in DOCUMENT.keys}


@pytest.mark.parametrize("file", ["README.md", "docs/policy.md"])
def test_every_policy_in_the_docs_loads_without_a_complaint_and_agrees_with_its_examples(file: str) -> None:
    policies = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / file).read_text(), re.M | re.S)
    assert policies
    github = "version: 1\nallow:\n  - github.com\n"
    for index, policy in enumerate(policies):
        layer = LayerSource("docs", ((f"policy-{index}.yaml", policy),))
        packs = PackFiles(ROOT / "policies/packs")
        loaded = load_policy([layer], {"github": github}, read_command=read_command, packs=packs)
        assert loaded.warnings == ()


def test_the_keys_of_a_command_match_and_the_classes_of_paths_are_all_described() -> None:
    commands = section("docs/policy.md", "## `commands`")
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.*) \|$", commands, re.M))
    assert {field.name for field in fields(CommandMatch)} == {key for key in rows if not key.startswith("<")}
    assert {name: described.about for name, described in CLASSES.items()} == {
        key: meaning for key, meaning in rows.items() if key.startswith("<")
    }


def read_command(text: str) -> CommandRequest:
    return from_text(
        text,
        cwd="/vol/parhelia/workspaces",
        home="/home/session",
        today=date(2026, 11, 22),
        origin=Origin(mechanism="docs"),
        supervised=False,
    )


def test_the_refusals_that_the_readme_shows_are_those_of_the_default_policy() -> None:
    text = section("README.md", "## What a session sees when it is refused")
    commands = re.findall(r"^\$ (.*)\nparhelia: denied by (.*)$", text, re.M)
    assert commands
    for command, said in commands:
        decision = decide(read_policy([]), read_command(command))
        assert said == f"{decision.rule}: {decision.reason}. {decision.instead}"
    for host, rule in re.findall(r"^\$ curl https://([^/]+)/\n.*X-Parhelia-Rule: ([\w-]+)", text, re.M):
        request = EgressRequest(host=host, port=443, today=date(2026, 11, 22), origin=Origin(mechanism="docs"))
        decision = decide(read_policy([]), request)
        assert (decision.verdict, decision.rule) == (Verdict.DENY, rule)


def test_the_readme_lists_the_exit_codes() -> None:
    rows = re.findall(r"^\| (\d+) \|", section("README.md", "## Exit codes"), re.M)
    assert [int(code) for code in rows] == [int(code) for code in Exit]


def test_the_readme_lists_the_verbs() -> None:
    rows = re.findall(r"^\| `(\w+)", section("README.md", "## Commands"), re.M)
    assert list(dict.fromkeys(rows)) == list(VERBS)


def test_the_readme_lists_the_environment_variables_that_the_agent_reads() -> None:
    listed = first_cells(section("README.md", "## Environment"))
    sources = "\n".join(path.read_text() for path in (ROOT / "agent").rglob("*.py"))
    read = set(re.findall(r"[\"'](PARHELIA_[A-Z_]+)[\"']", sources))
    assert set(listed) == read


def test_the_policy_docs_give_each_verb_of_the_control_socket_to_its_least_role() -> None:
    nothing = cast("Any", SimpleNamespace(answer=None))
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section("docs/policy.md", "## `control`"), re.M))
    told = {verb.removeprefix("lockdown --"): role for role, row in rows.items() for verb in re.findall("`(.*?)`", row)}
    verbs = ControlVerbs(nothing, nothing, nothing, nothing).table()
    assert told == {name: str(verb.least) for name, verb in verbs.items()}


def test_the_map_of_the_house_has_every_part_once() -> None:
    (listed,) = re.findall(r"```\n(agent/cli/.*?)```", section("docs/architecture.md", "## The house"), re.S)
    named = re.findall(r"agent/([\w.]+)", listed)
    parts = [path.name for path in (ROOT / "agent").iterdir() if path.name not in ("__init__.py", "__pycache__")]
    assert sorted(named) == sorted(parts)


def test_the_map_of_the_guards_house_has_every_package_and_module_once() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", section("docs/architecture.md", "## The house"), re.M)
    house = ROOT / "agent/daemon"
    for package, about, modules in rows:
        assert sorted(re.findall(r"`(\w+)`", modules)) == modules_of(house / package), package
        assert f'"""{about}"""\n' == (house / package / "__init__.py").read_text(), package
    assert sorted(package for package, _, _ in rows) == sorted(file.parent.name for file in house.glob("*/__init__.py"))
    assert modules_of(house) == ["guard", "keeper"]


def modules_of(package: Path) -> list[str]:
    return sorted(path.stem for path in package.glob("*.py") if path.stem != "__init__")


def test_links_between_the_docs_lead_somewhere() -> None:
    for file in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)]+)\)", file.read_text()):
            path, _, anchor = target.partition("#")
            if "://" in path:
                continue
            linked = (file.parent / path) if path else file
            assert linked.exists(), f"{file.name}: {target}"
            if anchor:
                headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.M)
                slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor in slugs, f"{file.name}: {target}"


def test_the_table_of_packs_is_that_of_the_shipped_packs() -> None:
    rows = re.findall(
        r"^\| \[(.+?)\]\(\.\./policies/packs/\1\.yaml\) \| (.+) \|$", section("docs/policy.md", "## `commands`"), re.M
    )
    abouts = {
        file.stem: re.findall(r"^about: (.+)$", file.read_text(), re.M)
        for file in (ROOT / "policies" / "packs").glob("*.yaml")
    }
    assert {name: [about] for name, about in rows} == abouts
