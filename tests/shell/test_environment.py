"""Which variables make which programs run what."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.request import Origin
from agent.shell.environment import HEAD, HEADS, TABLE, Kind, is_named, payloads, rows
from agent.shell.fold import Word
from agent.shell.requests import from_argv, from_text
from agent.shell.scripts import scripts
from agent.shell.steps import Script

HARM = "rm -rf /etc"


def run_by(argv: tuple[str, ...], *environment: tuple[str, str]) -> list[tuple[str, ...]]:
    """The argument lists that `argv` with these variables runs besides itself."""
    request = from_argv(
        argv, exe=None, cwd="/w", home="/h", today=date(2026, 11, 22), origin=Origin("exec"), environment=environment
    )
    return [command.argv for command in request.commands[1:]]


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (("git", "fetch"), "GIT_SSH_COMMAND", HARM),
        (("git", "log"), "GIT_PAGER", f"less; {HARM}"),
        (("git", "log"), "PAGER", f"sh -c '{HARM}'"),
        (("git", "diff"), "GIT_EXTERNAL_DIFF", HARM),
        (("git", "commit"), "VISUAL", f"{HARM} #"),
        (("man", "ls"), "MANPAGER", HARM),
        (("less", "f"), "LESSOPEN", f"|{HARM} %s"),
        (("less", "f"), "LESSOPEN", f"||-{HARM} %s"),
        (("crontab", "-e"), "EDITOR", HARM),
        (("kubectl", "edit", "x"), "KUBE_EDITOR", HARM),
        (("bash", "-i"), "PROMPT_COMMAND", HARM),
        (("sh", "-x", "s"), "PS4", f'$({HARM}) "quoted"'),
        (("bash", "-c", "ls"), "BASH_FUNC_ls%%", f"() {{ {HARM}; }}"),
        (("bash", "-c", "ls"), "BASH_FUNC_ls()", f"() {{ {HARM}; }}"),
        (("bash", "x"), "BASH_ENV", f"$({HARM})/e"),
        (("sh", "x"), "ENV", f"`{HARM}`"),
        (("tar", "xf", "a"), "TAR_OPTIONS", r"--checkpoint=1 --checkpoint-action=exec=rm\ -rf\ /etc"),
        (("rsync", "a", "b"), "RSYNC_RSH", HARM),
        (("perl", "-e", "1"), "PERL5OPT", "-w -Mstrict;system('rm','-rf','/etc')"),
        (("perl5.36.0", "x"), "PERL5DB", f"BEGIN {{ system('{HARM}') }}"),
        (("lua5.4", "x"), "LUA_INIT", f"io.popen('{HARM}')"),
        (("java", "-jar", "x"), "JAVA_TOOL_OPTIONS", "-Xmx1g -XX:OnError=reboot"),
        (("vim", "f"), "VIMINIT", f":!{HARM}"),
        (("python3.12", "-m", "webbrowser", "u"), "BROWSER", HARM),
    ],
)
def test_a_variable_is_followed(argv: tuple[str, ...], name: str, value: str) -> None:
    found = run_by(argv, (name, value))
    assert any(command[:2] == ("rm", "-rf") or command == ("reboot",) for command in found), found
    assert run_by(("true",), (name, value)) == [], "a program that it does not concern"


def test_a_setting_of_git_by_variables_counts_as_one_on_its_command_line() -> None:
    settings = (("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "alias.st"), ("GIT_CONFIG_VALUE_0", f"!{HARM}"))
    assert ("rm", "-rf", "/etc") in run_by(("git", "st"), *settings)


def test_of_a_name_given_twice_both_values_count() -> None:
    for values in ((HARM, "less"), ("less", HARM)):
        assert ("rm", "-rf", "/etc") in run_by(("git", "log"), *(("PAGER", value) for value in values))


@pytest.mark.parametrize(
    ("program", "name", "value", "file", "language"),
    [
        ("bash", "BASH_ENV", "/tmp/e", "/tmp/e", "shell"),
        ("dash", "ENV", "e", "e", "shell"),
        ("python3", "PYTHONSTARTUP", "/tmp/s.py", "/tmp/s.py", "python"),
        ("node", "NODE_OPTIONS", "--max-old-space-size=9 --require ./evil.js", "./evil.js", "node"),
        ("node", "NODE_OPTIONS", "--import=/tmp/evil.mjs", "/tmp/evil.mjs", "node"),
        ("ruby3.1", "RUBYOPT", "-W0 -r./evil", "./evil", "ruby"),
        ("lua", "LUA_INIT", "@/tmp/i.lua", "/tmp/i.lua", "lua"),
    ],
)
def test_a_variable_names_a_file_that_is_run(program: str, name: str, value: str, file: str, language: str) -> None:
    assert Script(language, Word(file)) in scripts(program, [program, "x"], ((name, value),))


def test_in_a_text_the_variables_before_a_command_count() -> None:
    text = f"GIT_SSH_COMMAND='{HARM}' git fetch"
    request = from_text(text, cwd="/w", home="/h", today=date(2026, 11, 22), origin=Origin("check"))
    assert ("rm", "-rf", "/etc") in [command.argv for command in request.commands]


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (("git", "log"), "PAGER", "less -R"),
        (("git", "log"), "GIT_PAGER", ""),
        (("bash", "-c", "true"), "PS1", r"\u@\h:\w\$ "),
        (("sh", "x"), "ENV", "production"),
        (("ls",), "LD_PRELOAD", "/usr/lib/libfakeroot.so"),
        (("python3", "x"), "PYTHONPATH", "/w/lib"),
        (("node", "x"), "NODE_OPTIONS", "--max-old-space-size=4096"),
    ],
)
def test_ordinary_values_lead_to_nothing_unknown(argv: tuple[str, ...], name: str, value: str) -> None:
    request = from_argv(
        argv, exe=None, cwd="/w", home="/h", today=date(2026, 11, 22), origin=Origin("exec"),
        environment=((name, value),),
    )  # fmt: skip
    assert request.unverifiable is None
    assert request.commands[0].assignments == ((name, value),)


def test_every_name_of_the_table_is_found_by_how_it_begins() -> None:
    for row in TABLE:
        name = row.name.replace("*", "x")
        assert f"{name}=".encode()[:HEAD] in HEADS
        assert is_named(name)
        assert row in rows(name)


def test_what_a_shipped_rule_asks_for_is_seen_at_the_exec() -> None:
    """The exec ring takes the table's variables and no others."""
    asked: set[str] = set()
    for pack in Path("policies/packs").glob("*.yaml"):
        for rule in yaml.safe_load(pack.read_text())["deny"]:
            asked |= {entry.partition("=")[0] for entry in rule["match"].get("environment", [])}
    assert "GIT_SSH_COMMAND" in asked
    assert sorted(name for name in asked if not is_named(name)) == []


def test_names_outside_of_the_table_are_not_taken() -> None:
    assert not any(is_named(name) for name in ("PATH", "HOME", "LDX", "GIT_AUTHOR_NAME", "PAGERX", "BASH", ""))


@given(st.sampled_from(TABLE), st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=60))
def test_no_value_is_too_strange(row: object, value: str) -> None:
    assert hasattr(row, "name")
    name = row.name.replace("*", "1")
    for program in (row.programs[0].replace("*", ""), "git"):  # type: ignore[attr-defined]
        run_by((program or "x", "a"), (name, value))
        steps = payloads(program, [Word(program or "x")], [(name, value)])
        assert not steps or row.kind is not Kind.SEEN or program == "git"  # type: ignore[attr-defined]
