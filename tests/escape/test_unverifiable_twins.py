"""What a text does not say beforehand is decided at the exec: for each kind of it a harmless twin, really run.

A kind is a reason for which the analysis calls a text unverifiable; every row of the shared corpus that expects a
denial and is known only when it runs is of a kind listed here. A twin's command stands nowhere in its text, and what it
deletes does not exist: `/etc/parhelia-none` is lost to nobody where the ring fails.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from agent.policy.model import Policy
from tests.escape.runtime import Case, Host, policy
from tests.policy.corpus import answer, every_pack, rows
from tests.shell.given import answer as default_answer
from tests.shell.given import request

VICTIM = "/etc/parhelia-none"


def said(text: str) -> str:
    """A substitution whose output nobody knows beforehand: `text`."""
    return f"$(id -un | sed 's:.*:{text}:')"


PYTHON = f'import os; os.execvp("rm", ["rm", "-rf", "{VICTIM}"])'
KINDS = {
    "the name of a command": (
        "the name of a command is not known",
        f'"{said("rm")}" -rf {VICTIM}',
    ),
    "text for a shell": (
        "a shell runs text that is not known",
        f'eval "{said(f"rm -rf {VICTIM}")}"',
    ),
    "text from a pipe": (
        "a shell runs text that is not known",
        f"id -un | sed 's:.*:rm -rf {VICTIM}:' | bash --noprofile",
    ),
    "text from a substitution that is sourced": (
        "a shell runs text that is not known",
        f"source <(id -un | sed 's:.*:rm -rf {VICTIM}:')",
    ),
    "text that xargs puts in": (
        "a shell runs text that is not known",
        f"id -un | sed 's:.*:{VICTIM}:' | xargs -I{{}} sh -c 'rm -rf {{}}'",
    ),
    "a shell's options": (
        "a shell whose options are not known",
        f'bash "{said("-c")}" "{said(f"rm -rf {VICTIM}")}"',
    ),
    "a target": (
        "whether [a-z-]+ applies is known only when it runs",
        f'rm -rf "{said(VICTIM)}"',
    ),
    "options and targets from xargs": (
        "whether [a-z-]+ applies is known only when it runs",
        f"id -un | sed 's:.*:-rf {VICTIM}:' | xargs rm",
    ),
    "an expression of find": (
        "find has an expression that is not known",
        f'find {VICTIM} -depth "{said("-delete")}"',
    ),
    "a wrapper's option": (
        "has an option that is not known here",
        f'env "{said("-i")}" "{said("rm")}" -rf {VICTIM}',
    ),
    "what is no syntax behind it": (
        "not valid shell syntax|a redirection could not be read",
        f'"{said("rm")}" -rf {VICTIM}; echo status=$?\n| no command stands here',
    ),
    "code for an interpreter": (
        "an interpreter runs code that is not known|an interpreter whose options are not known",
        f'C="$(id -un | sed \'s:.*:{PYTHON}:\')"; python3 -c "$C"',
    ),
    "a command that code computes": (
        "inline code (?:runs|evaluates|looks up)",
        f"python3 -c 'import os, sys; sys.exit(os.system(chr(114) + \"m -rf {VICTIM}\") >> 8)'",
    ),
}
"""The kinds: the reason as the analysis gives it, and the twin."""

RUNNER = """\
import json, subprocess, sys
answers = {}
for name, text in json.loads(sys.argv[1]).items():
    text = text if "status=" in text else text + "; echo status=$?"
    done = subprocess.run(["/bin/bash"], input=text, cwd="/tmp", text=True, capture_output=True)
    answers[name] = [done.stdout, done.stderr]
print(json.dumps(answers))
"""


def test_every_row_that_is_known_only_at_the_exec_is_of_a_kind_with_a_twin(tmp_path: Path) -> None:
    packs = every_pack(tmp_path)
    kinds = re.compile("|".join(reason for reason, _ in KINDS.values()))
    denied = [row.command for row in rows() if row.expect == "deny"]
    late = [command for command in denied if str(answer(packs, command).verdict) == "unverifiable"]
    assert late
    reasons = [(command, part) for command in late for part in why(packs, command)]
    assert [(command, part) for command, part in reasons if not kinds.search(part)] == []


def why(packs: Policy, command: str) -> list[str]:
    """The reasons for which a command is known only at the exec."""
    found = request(command).unverifiable
    return found.split("; ") if found is not None else [answer(packs, command).reason]


@pytest.mark.parametrize("kind", KINDS)
def test_a_twin_is_known_only_at_the_exec_for_the_reason_of_its_kind(kind: str, tmp_path: Path) -> None:
    reason, text = KINDS[kind]
    assert default_answer(text) == ("unverifiable", "commands-unverifiable")
    assert re.search(reason, answer(every_pack(tmp_path), text).reason)


def test_every_twin_is_refused_recorded_and_counted(host: Host) -> None:
    gateway = {"PARHELIA_PUSHGATEWAY_URL": f"http://127.0.0.1:{host.upstream.ports['http']}"}
    texts = json.dumps({kind: text for kind, (_, text) in KINDS.items()})
    command = ("/usr/bin/env", "python3", "-c", RUNNER, texts)
    outcome = host.run(Case(command, policy(), env=gateway | {"PATH": "/usr/bin:/bin"}))
    assert outcome.status == 0, outcome.stderr
    answers: dict[str, list[str]] = json.loads(outcome.stdout)
    through = {kind: heard for kind, heard in answers.items() if "status=0" in heard[0] or "denied by" not in heard[1]}
    assert through == {}
    events = [event["details"] for event in outcome.of("bash.dangerous")]
    assert {(event["rule"], event["mechanism"]) for event in events} == {("recursive-delete-system", "exec")}
    assert sum(event.get("count", 1) for event in events) == len(KINDS)  # equal ones of a burst are one line
    pushed = Path(host.upstream.pushed).read_text()
    (count,) = re.findall(r'^parhelia_security_denied_total\{event_type="bash\.dangerous"\} (\S+)$', pushed, re.M)
    assert float(count) == len(KINDS)
    assert outcome.verified == 0
