"""Rules of packs at the exec: what the text hides is refused on its final argv, whatever tool stands there."""

from __future__ import annotations

import pytest

from tests.escape.runtime import Case, Host, policy

STANDIN = "printf '#!/bin/sh\\necho ran' > {tool}; chmod +x {tool}; PATH=$PWD:$PATH"

HIDDEN = [
    ("git", "git", "$(id -un | sed 's:.*:reset:') --hard", "git-reset-hard"),
    ("cloud", "aws", 'ec2 "$(id -un | sed s:.*:terminate-instances:)" --instance-ids i-1', "aws-delete"),
    ("kubernetes", "kubectl", '-n x delete "$(id -un | sed s:.*:ns:)" y', "kubernetes-delete"),
    ("containers", "docker", 'run "$(id -un | sed s:.*:--privileged:)" alpine', "container-privileged"),
    ("terraform", "terraform", '"$(id -un | sed s:.*:destroy:)"', "terraform-destroy"),
    ("databases", "psql", '-c "$(id -un | sed s:.*:DROP:) TABLE users"', "sql-drop"),
    ("package-publishing", "npm", '"$(id -un | sed s:.*:publish:)"', "npm-publish"),
]


@pytest.mark.parametrize(("pack", "tool", "words", "rule"), HIDDEN)
def test_what_the_text_hides_is_refused_by_the_packs_rule_at_the_exec(
    host: Host, pack: str, tool: str, words: str, rule: str
) -> None:
    script = f"cd $(mktemp -d); {STANDIN.format(tool=tool)}; {tool} --version; {tool} {words}; echo status=$?"
    outcome = host.run(Case(("/bin/sh", "-c", script), f"packs: [{pack}]\n{policy()}"))
    assert outcome.stdout.splitlines()[-2:] == ["ran", "status=126"], outcome.stdout + outcome.stderr
    events = outcome.of("bash.dangerous")
    assert {event["details"]["rule"] for event in events} == {rule}  # the shell tries each directory of its PATH
    assert f"parhelia: denied by {rule}: " in outcome.stderr
