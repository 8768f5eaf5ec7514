"""Ordinary work under the shipped path rules, in a repository that was there when the session started: git and package
managers do all they are used for, and what is protected stays as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.escape.runtime import Case, Host, policy
from tests.escape.telling import Telling, beside
from tests.escape.test_live_policy import events, until

SHIPPED = Path(__file__).parents[2] / "policies" / "paths.yaml"

GIT = r"""
set -e
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@x.test GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@x.test
git status --porcelain > /dev/null
test -z "$(git status --porcelain)"
echo 1 > f; git add -A; git commit -qm first
git checkout -q -b topic; echo 2 > f; git commit -qam second
git remote add origin ../remote.git
git push -q -u origin topic
git config user.name b
git checkout -q -b tracking --track origin/topic
git branch -m tracking renamed; git branch -D topic
echo 3 >> f; git stash -q; git stash pop -q; git commit -qam third
git checkout -q main; echo m > g; git add g; git commit -qm main
git rebase -q main renamed; git checkout -q main; git merge -q --no-edit renamed
git worktree add -q ../worktree -b beside; (cd ../worktree && echo w > w && git add w && git commit -qm w)
git worktree remove ../worktree
(cd ../kept && echo k > k && git add k && git commit -qm k)
git worktree move ../kept ../moved; git worktree remove ../moved
git -c protocol.file.allow=always submodule --quiet add ../remote.git lib && git commit -qm lib
git submodule --quiet deinit lib && git -c protocol.file.allow=always submodule --quiet update --init
git gc -q --prune=now; git fsck; git tag t; git push -q --tags origin main; git fetch -q; git pull -q origin main
git cherry-pick -n HEAD~1 >/dev/null 2>&1 || git cherry-pick --abort || true; git reset -q --hard
touch junk; git clean -qfdx || test $? = 1  # it says which reserved directories it cannot remove
test ! -e junk
git clone -q . ../clone && (cd ../clone && echo c > c && git add c && git commit -qm c)
mkdir ../new && cd ../new && git init -q && echo n > n && git add n && git commit -qm n
rm -rf ../new ../clone
echo git worked
"""

PACKAGES = r"""
set -e
/usr/bin/python3 -m venv .venv
mkdir -p src/tiny && echo 'x = 1' > src/tiny/__init__.py
cat > pyproject.toml <<TOML
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "tiny"
version = "1"
TOML
cat > backend.py <<PY
import os, zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    name = "tiny-1-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        wheel.writestr("tiny/__init__.py", "x = 1")
        wheel.writestr("tiny-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1\n")
        wheel.writestr("tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tiny-1.dist-info/RECORD", "")
    return name
PY
.venv/bin/pip -q --disable-pip-version-check install --no-index . && .venv/bin/python -c 'import tiny'
.venv/bin/pip -q --disable-pip-version-check uninstall -y tiny
mkdir -p dep && echo '{"name": "dep", "version": "1.0.0"}' > dep/package.json
echo '{"name": "app", "version": "1.0.0", "dependencies": {"dep": "file:dep"}}' > package.json
npm install --offline --no-audit --no-fund --loglevel error
mkdir -p node_modules/left/.vscode && touch node_modules/left/.env
npm ci --offline --no-audit --no-fund --loglevel error
npm config set --location=project fund false
rm -rf node_modules .venv
echo packages worked
"""


@pytest.fixture
def base() -> Iterator[Path]:
    """A repository with a remote, owned by the session's account."""
    made = Path("/tmp") / f"work-{os.getpid()}"
    project = made / "project"
    project.mkdir(parents=True)
    run = ["git", "-c", "init.defaultBranch=main", "-c", "user.name=a", "-c", "user.email=a@x.test"]
    subprocess.run([*run, "init", "-q", project], check=True)
    (project / "README").write_text("x")
    (project / ".env").write_text("old")
    (project / ".gitignore").write_text(".env\n.venv\n")
    for command in (["add", "-A"], ["commit", "-qm", "start"]):
        subprocess.run([*run, "-C", project, *command], check=True)
    subprocess.run([*run, "-C", project, "worktree", "add", "-q", made / "kept"], check=True)
    subprocess.run([*run, "clone", "-q", "--bare", project, made / "remote.git"], check=True, capture_output=True)
    subprocess.run(["chown", "-R", "session:session", made], check=True)
    yield made
    shutil.rmtree(made)


def shipped(base: Path) -> str:
    """The shipped path rules with `base` in the place of /tmp, where other tests make and remove repositories: one that
    is gone before it is held makes paths partial, and such a session is not contained."""
    rules = SHIPPED.read_text().partition("\npaths:\n")[2].replace("/tmp", str(base))
    return policy().partition("paths:\n")[0] + "paths:\n" + rules


@pytest.mark.root
@pytest.mark.parametrize(
    ("script", "shows"), [(GIT, "git worked"), (PACKAGES, "packages worked")], ids=["git", "packages"]
)
def test_ordinary_work_goes_on_beside_protected_places(host: Host, base: Path, script: str, shows: str) -> None:
    require(shutil.which("npm") and shutil.which("git"), "git and npm are not installed")
    text = shipped(base)
    flags = ("--workdir", str(base / "project"), "--require", "contained")
    outcome = host.run(Case(("/bin/bash", "-c", script), text, flags=flags))
    assert outcome.status == 0, outcome.stdout[-3000:] + outcome.stderr[-3000:]
    assert shows in outcome.stdout
    assert outcome.of("session.create")[0]["details"]["reserved"] > 20
    assert (base / "project/.env").read_text() == "old"
    assert list((base / "project").glob(".vscode*")) == []


ELSEWHERE = r"""
set -e
cp -r .git "$TMPDIR/other"
git config --file "$TMPDIR/other/config" core.fsmonitor 'touch fsmonitor-ran; false'
printf '%s\n' "$TMPDIR/other" > .git/commondir
git status > /dev/null
test -e fsmonitor-ran
cd ../kept
printf 'gitdir: %s\n' "$TMPDIR/other" > .git
git status > /dev/null
test -e fsmonitor-ran
"""


@pytest.mark.root
def test_a_repository_whose_configuration_and_hooks_are_moved_elsewhere_is_on_record(host: Host, base: Path) -> None:
    telling, moved = Telling(host, base), {str(base / "project/.git/commondir"), str(base / "kept/.git")}

    def look() -> None:
        """A session that ends before would have it said that not all was looked at, on a busy machine."""
        until(lambda: moved <= {event["resource"] for event in events(host.audit, "integrity.changed")}, "the changes")

    script = ELSEWHERE + telling.waits("told")
    case = Case(("/bin/bash", "-c", script), shipped(base), flags=("--workdir", str(base / "project")))
    with beside(look, telling, "told"):
        outcome = host.run(case)
    assert outcome.status == 0, outcome.stderr  # git does obey it
    changed = {event["resource"]: event["details"]["kind"] for event in outcome.of("integrity.changed")}
    assert {changed[path] for path in moved} == {"protected"}
    assert str(base / "project/.git") not in changed
