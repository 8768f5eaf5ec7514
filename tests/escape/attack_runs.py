"""One session of a group of attacks on one of the five runtimes, and what came of it.

`Assault` is the outcome of each act, the events, the counters of the last push, and what the stage shows afterwards.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.escape.attacks.declared import Group, Record
from tests.escape.attacks.stage import PYTHON, START, Stage, found, world_of
from tests.escape.containers import RESTRICTED_UID, SHARED, Container, Restricted
from tests.escape.runtime import Case, Host, Outcome, Runtime


@dataclass(frozen=True)
class Assault:
    """What a group's session left on one runtime."""

    runtime: str
    outcome: Outcome
    acts: Mapping[str, dict[str, Any]]
    pushed: str
    journal: tuple[dict[str, Any], ...]
    made: frozenset[str]
    ports: Mapping[str, int]

    def recorded(self, act: str, record: Record) -> bool:
        """Whether the log has that refusal of this act."""
        words = record.words.replace("{port}", str(self.ports.get(act, "")))
        return any(
            event["details"].get("rule") == record.rule and words in json.dumps(event)
            for event in self.outcome.of(record.event_type)
        )

    @property
    def denied(self) -> Counter[str]:
        """How many refusals the log has of each type."""
        counted: Counter[str] = Counter()
        for event in self.outcome.events:
            if event["result"] == "denied":
                counted[event["details"]["event_type"]] += event["details"].get("count", 1)
        return counted

    @property
    def counted(self) -> Counter[str]:
        """The same by the counters of the last push."""
        pattern = r'^parhelia_security_denied_total\{event_type="([^"]+)"\} (\S+)$'
        pairs = re.findall(pattern, self.pushed, re.M)
        return Counter({name: int(float(value)) for name, value in pairs if float(value)})


def assault(runtime: Runtime, group: Group, absent: Mapping[str, str]) -> Assault:
    """Run the group's session there."""
    world = {**world_of(group.doors, None, absent), "runtime": runtime.name, "ports": runtime.upstream.ports}
    world |= {"audit": str(runtime.audit), "policies": str(runtime.policies)}
    env = {"PARHELIA_PUSHGATEWAY_URL": f"http://127.0.0.1:{runtime.upstream.ports['http']}"}
    if isinstance(runtime, Host):
        return _on_host(runtime, group, world, env)
    assert isinstance(runtime, Container)
    return _in_container(runtime, group, world, env)


def _left(runtime: Runtime, stage: Stage, outcome: Outcome, world: dict[str, Any]) -> Assault:
    pushed = Path(runtime.upstream.pushed)
    text = pushed.read_text() if pushed.exists() else ""
    journal, made = tuple(stage.journal), frozenset(stage.made)
    return Assault(runtime.name, outcome, found(outcome.stdout), text, journal, made, world["tcp"])


def _case(group: Group, stage: Stage, env: dict[str, str]) -> Case:
    text = group.policy
    for name, place in stage.places.items():
        text = text.replace(f"{{{name}}}", place)
    return Case(stage.attack(group.program), text, env=env)


def _on_host(host: Host, group: Group, world: dict[str, Any], env: dict[str, str]) -> Assault:
    stage = on_this_machine()
    try:
        stage.build(world)
        with stage.outsider():
            outcome = host.run(_case(group, stage, env))
        return _left(host, stage, outcome, world)
    finally:
        shutil.rmtree(stage.directory)


def on_this_machine() -> Stage:
    """A stage that the session's account can reach, which no directory of the test run is. The caller removes it."""
    account = pwd.getpwnam("session")
    directory = f"/var/tmp/parhelia-attack-{os.getpid()}"
    return Stage(Path(directory), directory, account.pw_uid, account.pw_gid)


def _in_container(container: Container, group: Group, world: dict[str, Any], env: dict[str, str]) -> Assault:
    stage = Stage(container.directory / "stage", f"{SHARED}/stage", RESTRICTED_UID, RESTRICTED_UID)
    stage.build(world)
    argv = container.argv(_case(group, stage, env))
    start = ["/bin/sh", "-c", START, "stage", stage.places["programs"], PYTHON, str(RESTRICTED_UID)]
    agent = next(index for index, word in enumerate(argv) if word.endswith("parhelia-agent"))
    if isinstance(container, Restricted):
        container.own()
    done = container.execute([*argv[:agent], *start, *argv[agent:]], env)
    return _left(container, stage, container.outcome(done), world)
