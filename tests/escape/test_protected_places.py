"""Attacks on protected places inside the trees that the session may write: each act must fail, and leave them as they
were, for the session and for whoever looks from outside."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.escape.containers import Docker, Gvisor
from tests.escape.runtime import CHECKOUT, Case, Host, Outcome, policy

PROTECT = (
    '  protect: ["*.git/hooks/**", .env, .late, .settings/agent.json, .tools/deep/x, "~/.parhelia-test-rc", '
    "'~/.parhelia-test-dir/**', linked-place, linked-file, two-names, '.settings/*/agent.json']\n"
)

ATTACKS = r"""
import ctypes, errno, json, os, sys
base, home = sys.argv[1:]
found = {}
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, act):
    try:
        act()
        found[name] = "did"
    except OSError as error:
        found[name] = errno.errorcode.get(error.errno, str(error.errno))
def call(name, *arguments):
    if getattr(libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)
def write(path):
    with open(path, "a") as file:
        file.write("written")
def exchange(a, b):
    call("renameat2", -100, os.fsencode(a), -100, os.fsencode(b), 2)
def unnamed(directory, target):
    fd = os.open(directory, os.O_TMPFILE | os.O_WRONLY, 0o644)
    os.link(f"/proc/self/fd/{fd}", target, follow_symlinks=True)
def rebuild(path):
    os.rename(path, path + ".away")
    os.makedirs(path)
def empty_write(path):
    os.truncate(path, 0)
project = f"{base}/project"
write(f"{base}/loose")
places = {
    "env": f"{project}/.env", "hooks": f"{project}/.git/hooks", "hook": f"{project}/.git/hooks/pre-commit",
    "late": f"{project}/.late", "agent": f"{project}/.settings/agent.json", "deep": f"{project}/.tools/deep/x",
    "rc": f"{home}/.parhelia-test-rc", "dir": f"{home}/.parhelia-test-dir", "sub": f"{project}/a/b/c/.env",
    "linked": f"{project}/linked-place", "target": f"{base}/elsewhere/tree", "linked-file": f"{project}/linked-file",
    "chain": f"{base}/elsewhere/step", "file-target": f"{base}/elsewhere/file", "bare": f"{base}/bare.git/hooks",
    "two-names": f"{project}/two-names", "second-name": f"{base}/elsewhere/second-name",
}
for name, place in places.items():
    write(f"{base}/victim")
    parent = os.path.dirname(place)
    if os.path.isdir(place):
        attempt(f"{name}: make a file in it", lambda: write(f"{place}/new"))
        attempt(f"{name}: make a directory in it", lambda: os.mkdir(f"{place}/new.d"))
        attempt(f"{name}: a file without a name in it", lambda: unnamed(place, f"{place}/linked"))
        if not os.path.islink(place):
            attempt(f"{name}: remove", lambda: os.rmdir(place))
    else:
        attempt(f"{name}: write", lambda: write(place))
        attempt(f"{name}: truncate", lambda: os.truncate(place, 0))
        attempt(f"{name}: open through /proc", lambda: write(f"/proc/self/root{place}"))
        fd = os.open(place, os.O_RDONLY)
        attempt(f"{name}: open its descriptor again", lambda: write(f"/proc/self/fd/{fd}"))
        os.close(fd)
    if not os.path.islink(place):
        attempt(f"{name}: unlink", lambda: os.unlink(place))
        attempt(f"{name}: chmod", lambda: os.chmod(place, 0o777))
        attempt(f"{name}: times", lambda: os.utime(place, (0, 0)))
        attempt(f"{name}: attribute", lambda: os.setxattr(place, "user.x", b"y"))
    attempt(f"{name}: unlink itself", lambda: os.unlink(place))
    attempt(f"{name}: rename away", lambda: os.rename(place, f"{base}/away"))
    attempt(f"{name}: rename over", lambda: os.rename(f"{base}/victim", place))
    attempt(f"{name}: exchange", lambda: exchange(f"{base}/victim", place))
    attempt(f"{name}: link over", lambda: os.link(f"{base}/victim", place))
    attempt(f"{name}: unmount", lambda: call("umount2", os.fsencode(place), 2))
    if os.path.isfile(place) and not os.path.islink(place):
        attempt(f"{name}: link out", lambda: (os.link(place, f"{base}/out"), write(f"{base}/out")))
    if parent not in (base, home, f"{base}/elsewhere"):
        attempt(f"{name}: rename its directory", lambda: rebuild(parent))
    if parent.startswith(f"{project}/"):
        attempt(f"{name}: rename a directory above", lambda: rebuild(project))
        attempt(f"{name}: exchange a directory above", lambda: exchange(project, f"{base}/other"))
attempt("way: replace a link to the project", lambda: os.rename(f"{base}/other", f"{base}/current"))
attempt("way: remove a link to the project", lambda: os.unlink(f"{base}/current"))
print(json.dumps(found))
print(json.dumps({name: open(place).read() for name, place in places.items() if os.path.isfile(place)}))
"""
IN_A_HOME = r"""
cd || exit 9
for act in 'echo x > .bashrc' 'rm -f .bashrc' 'mv .bashrc y' 'mv -f mine .bashrc' 'ln -f mine .bashrc' \
    'chmod 777 .bashrc' 'touch -d @0 .bashrc' 'echo x > .profile' 'rm -rf .aws' 'mv .aws away' \
    'echo x > .aws/credentials' 'mv -f mine .aws/credentials' 'rm -f .aws/credentials' 'touch .ssh/config' \
    'mv .ssh s' 'mv -f mine .netrc' 'ln .bashrc out && echo x >> out' 'mv ../session ../s' 'chmod 700 .' \
    'echo x >> /proc/self/root/home/session/.bashrc'
do
    echo own > mine
    if eval "$act" 2> /dev/null; then echo "did: $act"; fi
done
echo y > new && mkdir .made && touch .aws/other && rm -r new .made .aws/other && echo done
"""


def _run(host: Host, base: Path, *flags: str, extra: str = PROTECT) -> Outcome:
    python = shutil.which("python3", path="/usr/bin:/bin") or "/usr/bin/python3"
    text = policy(write=str(base)) + extra
    script = ATTACKS
    home = pwd.getpwnam("session").pw_dir
    flags = ("--workdir", str(base / "project"), *flags)
    return host.run(Case((python, "-c", script, str(base), home), text, flags=flags))


@pytest.fixture
def base(host: Host, tmp_path: Path) -> Iterator[Path]:
    """A tree of the session's, below a directory that everybody can reach."""
    made = Path("/tmp") / f"protected-{os.getpid()}-{tmp_path.name[-8:]}"
    files = {
        "project/.env": "old", "project/.git/hooks/pre-commit": "old", "project/.git/config": "", "project/x": "",
        "project/a/b/c/.env": "old", "elsewhere/tree/file": "old", "elsewhere/file": "old", "other/x": "",
        "bare.git/hooks/x": "old", "project/two-names": "old",
    }  # fmt: skip
    for name, text in files.items():
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (made / "project/linked-place").symlink_to("../elsewhere/tree")
    (made / "project/linked-file").symlink_to("../elsewhere/step")
    (made / "elsewhere/step").symlink_to("file")
    (made / "current").symlink_to("project")
    os.link(made / "project/two-names", made / "elsewhere/second-name")
    subprocess.run(["chown", "-hR", "session:session", str(made)], check=True)
    yield made
    shutil.rmtree(made)


@pytest.mark.root
def test_a_protected_place_stays_as_it_is_whatever_the_session_does(host: Host, base: Path) -> None:
    outcome = _run(host, base, "--require", "contained")
    assert outcome.status == 0, outcome.stderr
    tried, texts = (json.loads(line) for line in outcome.stdout.splitlines())
    assert len(tried) > 150
    assert {name: came for name, came in tried.items() if came == "did"} == {}
    assert set(texts.values()) == {"old", ""}
    assert (base / "project/.env").read_text() == "old"
    assert sorted(entry.name for entry in (base / "project").iterdir()) == [
        ".env",
        ".git",
        "a",
        "linked-file",
        "linked-place",
        "two-names",
        "x",
    ]  # fmt: skip  (what was reserved is gone again)
    home = Path(pwd.getpwnam("session").pw_dir)
    assert not (home / ".parhelia-test-rc").exists()
    assert not (home / ".parhelia-test-dir").exists()


@pytest.mark.root
@pytest.mark.docker
def test_without_mounts_the_homes_protected_places_are_held_by_ownership(docker_sessions: Docker) -> None:
    shipped = (CHECKOUT / "policies/paths.yaml").read_text().partition("\npaths:\n")[2]
    text = policy().partition("paths:\n")[0] + "paths:\n" + shipped
    outcome = docker_sessions.run(Case(("/bin/sh", "-c", IN_A_HOME), text, flags=("--require", "contained")))
    assert (outcome.status, outcome.stdout) == (0, "done\n"), outcome.stderr
    assert outcome.of("session.create")[0]["details"]["reserved"] > 10


@pytest.mark.root
@pytest.mark.docker
@pytest.mark.gvisor
def test_where_neither_mounts_nor_ownership_hold_a_place_it_is_said(gvisor_2022: Gvisor) -> None:
    text = policy() + "  protect: [~/.bashrc]\n"
    outcome = gvisor_2022.run(Case(("/bin/true",), text))
    said = [event["details"]["reason"] for event in outcome.of("agent.degraded") if event["resource"] == "paths"]
    assert outcome.status == 0, outcome.stderr
    assert any("/.bashrc is protected and held by nothing: no mount namespace" in reason for reason in said), said


@pytest.mark.root
@pytest.mark.docker
def test_without_mounts_a_protected_place_elsewhere_is_said_and_not_contained(docker_sessions: Docker) -> None:
    text = policy(write="/tmp, /srv") + "  protect: [/srv/keep]\n"
    outcome = docker_sessions.run(Case(("/bin/true",), text, flags=("--require", "best-effort")))
    said = [event for event in outcome.of("agent.degraded") if event["resource"] == "paths"]
    assert outcome.status == 0
    assert [event["details"]["reason"] for event in said] == [
        "/srv/keep is protected and held by nothing: no mount namespace here"
    ]
    refused = docker_sessions.run(Case(("/bin/true",), text, flags=("--require", "contained")))
    assert refused.status == 5
