"""Real work under the development profile: builds, a git workflow with hooks, a node project. Nothing is refused.

The policy is the shipped profile as it is, and one file beside it with what a user of it adds: the host of the index's
files, and the ranges that names resolve to here where these are not public.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import require
from tests.escape.runtime import AGENT, Host, Outcome, read_log, verify
from tests.escape.test_real_index import INDEX, NPM, file_host, granted

pytestmark = pytest.mark.network

PROFILE = Path(__file__).parents[2] / "policies" / "profiles" / "development"
BUILDS = ("psutil", "pynacl", "pyyaml")
"""An extension by setuptools, one with a whole configure and make of its own, one by Cython."""
WORKDIR = "/vol/parhelia/workspaces"


def work(host: Host, script: str, *hosts: str) -> Outcome:
    """Run `script` under the profile in a directory of its own below the workspace."""
    policies = host.directory / "policies"
    shutil.copytree(PROFILE, policies)
    addresses = granted(INDEX).partition("addresses: ")[2].rstrip("}\n")  # the profile's own rule for the index
    if addresses:
        egress = (policies / "egress.yaml").read_text()
        named = f"      host: {INDEX}\n"
        assert named in egress
        (policies / "egress.yaml").write_text(egress.replace(named, f"{named}      addresses: {addresses}\n"))
    grants = "".join(granted(name) for name in hosts if name != INDEX)
    (policies / "here.yaml").write_text("version: 1\negress:\n  allow:\n" + grants if grants else "version: 1\n")
    place = f'd=$(mktemp -d {WORKDIR}/real-work-XXXXXX) && cd "$d" && trap \'cd / && rm -rf "$d"\' EXIT\n'
    command = ["/bin/bash", "-c", f"{place}set -e\n{script}"]
    done = subprocess.run(
        [AGENT, "run", "--policy", policies, "--audit-dir", host.audit, "--workdir", WORKDIR, "--", *command],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=1200,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr, read_log(host.audit), host.audit, verify(host.audit))


def check(outcome: Outcome, *shows: str) -> None:
    """It worked, and nothing of it was refused."""
    refused = [
        (event["details"].get("rule"), event["resource"], event["details"].get("reason"))
        for event in outcome.events
        if event["result"] != "success"
    ]
    assert refused == []
    assert outcome.status == 0, outcome.stdout[-4000:] + outcome.stderr[-4000:]
    assert [word for word in shows if word not in outcome.stdout + outcome.stderr] == []
    assert outcome.verified == 0


@pytest.mark.timeout(900)  # a whole configure and make, each exec of it decided, beside the other half of the suite
@pytest.mark.parametrize("package", BUILDS)
def test_a_well_known_package_is_built_from_its_source(host: Host, package: str) -> None:
    files, _ = file_host()
    script = (
        "python3 -m venv v\n"
        f"LIBSODIUM_MAKE_ARGS=-j2 v/bin/pip --isolated wheel --no-cache-dir --no-binary {package} --no-deps"
        f" --progress-bar off -w out {package} > log 2>&1 || {{ cat log; exit 1; }}\n"
        "v/bin/pip --isolated install --no-index --no-deps out/*.whl && ls out\n"
    )
    outcome = work(host, script, files)
    check(outcome, "Successfully installed", "linux_x86_64.whl")
    assert outcome.of("session.terminate")[0]["details"]["bytes_down"] > 50_000


GIT = r"""
export GIT_CONFIG_GLOBAL=$PWD/gitconfig
git config --global user.name Tester; git config --global user.email tester@example.test
git config --global init.defaultBranch main
git init -q --bare remote.git && git clone -q remote.git work && cd work
mkdir hooks && git config core.hooksPath hooks
cat > hooks/pre-commit <<'HOOK'
#!/bin/sh
git diff --cached --check || exit 1
for f in $(git diff --cached --name-only --diff-filter=ACM); do
  case "$f" in *.sh) sh -n "$f" || exit 1;; *.py) python3 -m py_compile "$f" || exit 1;; esac
done
rm -rf __pycache__
echo pre-commit ran
HOOK
cat > hooks/commit-msg <<'HOOK'
#!/bin/bash
grep -qE '^(feat|fix|docs)(\(.+\))?: .+' "$1" || { echo "bad message" >&2; exit 1; }
HOOK
cat > hooks/pre-push <<'HOOK'
#!/usr/bin/env python3
import subprocess, sys
subprocess.run(["git", "log", "--oneline", "-3"], check=True)
HOOK
chmod +x hooks/*
printf 'print("hello")\n' > app.py; printf '#!/bin/sh\necho "$@"\n' > run.sh
git add -A && git commit -qm 'feat: start' && git push -q origin main
! git commit -q --allow-empty -m 'no type' 2>/dev/null
git switch -qc topic; echo 'print("more")' >> app.py; git commit -qam 'feat(app): more'
git switch -q main; echo notes > NOTES.md; git add NOTES.md; git commit -qm 'docs: notes'
git switch -q topic; git rebase -q main; git switch -q main; git merge -q --no-ff -m 'feat: merge topic' topic
echo draft > draft.txt; git add draft.txt; git stash -q; git stash pop -q; git restore --staged draft.txt; rm draft.txt
git tag -a v1 -m 'release 1'; git push -q --follow-tags origin main
git worktree add -q ../second v1; git -C ../second log --oneline | wc -l; git worktree remove ../second
git branch -d topic; printf 'feat: take it back\n' > message; git revert --no-commit -m 1 HEAD; git commit -qF message
git fetch -q --prune; git gc -q; git fsck
git log --graph --oneline --all | head -20; git blame app.py | head -3; git archive HEAD | tar t
git status --short; echo finished
"""


def test_a_git_workflow_with_hooks(host: Host) -> None:
    require(shutil.which("git") is not None, "git is not installed")
    check(work(host, GIT), "pre-commit ran", "finished")


NODE = r"""
cat > package.json <<'JSON'
{"name": "project", "version": "1.0.0", "private": true,
 "scripts": {"prebuild": "rm -rf dist", "build": "mkdir -p dist && cp src/*.js dist/", "pretest": "npm run build",
             "test": "mocha --exit test/*.js && node --test"},
 "devDependencies": {"mocha": "*", "is-number": "*"}}
JSON
mkdir src test && echo 'module.exports = (a, b) => a + b' > src/add.js
cat > test/add.js <<'JS'
const assert = require('assert'), {execSync} = require('child_process'), isNumber = require('is-number')
describe('add', () => {
  it('adds', () => assert(isNumber(require('../dist/add')(1, 2))))
  it('starts programs', () => assert.equal(execSync('echo ok | tr a-z A-Z').toString().trim(), 'OK'))
})
JS
cat > unit.test.js <<'JS'
const test = require('node:test'), assert = require('node:assert')
test('native', () => assert.equal(require('./dist/add')(2, 2), 4))
JS
export npm_config_cache=$PWD/cache npm_config_update_notifier=false
node NPM install --no-audit --no-fund && node NPM test && node NPM ls && npx --no-install mocha --version
rm -rf node_modules && node NPM ci --no-audit --no-fund && echo finished
"""


def test_a_node_projects_install_build_and_tests(host: Host) -> None:
    require(Path(NPM).exists(), "npm is not installed")
    asked = subprocess.run(["node", NPM, "config", "get", "registry"], capture_output=True, text=True, check=True)
    registry = str(urlsplit(asked.stdout.strip()).hostname)
    check(work(host, NODE.replace("NPM", NPM), registry), "2 passing", "finished")


CALLS = r"""
git init -q . && git config user.name T && git config user.email t@example.test && git commit -q --allow-empty -m start
echo one > a; git add a; git stash -q && git stash pop -q && echo stashed
g=$(id -un | sed s/session/git/); r=$(id -un | sed s/session/reset/)
"$g" reset --hard -q; echo direct=$?
"/usr/lib/git-core/$g" reset --hard -q; echo core=$?
cp /usr/bin/git ./mine; "./$(id -un | sed s/session/mine/)" reset --hard -q; echo copy=$?
git -c "alias.x=$r --hard -q" x; echo alias=$?
git -c "alias.x=!git $r --hard -q" x; echo shell=$?
cat a; echo finished
"""


def test_what_git_starts_of_itself_runs_and_what_the_session_starts_is_refused(host: Host) -> None:
    """`git stash` calls `git reset --hard`; nobody else may, by whatever way."""
    outcome = work(host, "set +e\n" + CALLS)
    assert outcome.status == 0, outcome.stdout + outcome.stderr
    lines = outcome.stdout.split()
    assert lines == ["stashed", "direct=126", "core=126", "copy=126", "alias=126", "shell=126", "one", "finished"]
    refused = [event["details"]["rule"] for event in outcome.of("bash.dangerous")]
    assert refused == ["git-reset-hard"] * 5
