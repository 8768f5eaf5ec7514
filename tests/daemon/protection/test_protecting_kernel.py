"""`decide` and the kernel held against each other: random trees and rules, real mounts and a real Landlock ruleset.

The kernel never allows what `decide` denies, and allows what `decide` allows, but for what is promised otherwise: a
protected name that is made after the start where none was reserved, and directories above a protected place, which stay
where they are.
"""

from __future__ import annotations

import datetime
import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent.daemon.protection.protecting import Protection, compile_protection
from agent.daemon.protection.reserving import Owner, reserve
from agent.daemon.protection.searching import Bounds
from agent.linux import landlock, namespaces, process
from agent.policy.decide import decide
from agent.policy.grants import Grants, path_grants
from agent.policy.load import LayerSource, load_policy
from agent.policy.model import Policy
from agent.policy.paths import covers, outermost
from agent.policy.protection import Protected
from agent.policy.request import Access, Origin, PathRequest
from agent.session import mounts
from agent.session.plan import Hold
from tests.conftest import require

NOBODY = 65534
ORIGIN = Origin(mechanism="test")
TODAY = datetime.date(2026, 1, 1)
DIRECTORIES = ["", "a", "a/.git", "a/.git/hooks", "a/b", "a/b/.d", "c", "c/d", "c/d/.git", "home", "home/.d"]
FILES = [f"{directory}/{name}".lstrip("/") for directory in DIRECTORIES for name in (".env", "f", "g")]
PATTERNS = [".env", ".git/hooks/**", "~/.d/g", "BASE/c/d", ".d/f", "f*x"]

TREES = st.fixed_dictionaries(
    {
        "directories": st.lists(st.sampled_from(DIRECTORIES[1:]), unique=True),
        "files": st.lists(st.sampled_from(FILES), unique=True),
        "links": st.dictionaries(
            st.sampled_from(["l", "a/l", "c/.env", "a/b/l", "home/l"]),
            st.sampled_from(["a", "a/.env", "c/d", "home", "a/b/f"]),
        ),
    }
)
RULES = st.fixed_dictionaries(
    {
        "write": st.lists(st.sampled_from(["a", "a/b", "c", "c/d"]), unique=True),
        "read": st.lists(st.sampled_from(["", "c", "a/.git"]), unique=True),
        "protect": st.lists(st.sampled_from(PATTERNS), unique=True),
    }
)
ACTS = st.lists(
    st.tuples(st.sampled_from(list(Access)), st.sampled_from([*FILES, *DIRECTORIES[1:], "l", "l/f", "a/l", "a/l/f"])),
    min_size=4,
    max_size=16,
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody reaches, and nobody else's."""
    require(os.geteuid() == 0 and landlock.abi() >= 3, "mounts need root, grants Landlock")
    made = Path("/tmp") / f"decided-{os.getpid()}"
    made.mkdir(mode=0o755)
    yield made
    shutil.rmtree(made)


def plant(base: Path, tree: dict[str, list[str] | dict[str, str]], made: list[str]) -> None:
    """`made`: the trees to write, which the agent makes where they are missing."""
    (base / "home").mkdir(parents=True)
    for directory in (*tree["directories"], *made):
        (base / directory).mkdir(parents=True, exist_ok=True)
    for file in tree["files"]:
        (base / file).parent.mkdir(parents=True, exist_ok=True)
        (base / file).write_text("")
        (base / file).chmod(0o755)
    links = tree["links"]
    assert isinstance(links, dict)
    for link, target in links.items():
        if (base / link).parent.is_dir() and not os.path.lexists(base / link):
            (base / link).symlink_to(base / target)
    subprocess.run(["chown", "-hR", f"{NOBODY}:{NOBODY}", base], check=True)


def ruled(base: Path, rules: dict[str, list[str]]) -> Policy | None:
    """The policy; None where its grants contradict each other."""
    write = [str(base / root) for root in rules["write"]]
    read = [str(base / root) for root in rules["read"]]
    kept = {"write": list(outermost(write)), "read": list(outermost(read))}
    kept["read"] = [root for root in kept["read"] if root not in kept["write"]]
    protect = [pattern.replace("BASE", str(base)) for pattern in rules["protect"]]
    text = json.dumps({"version": 1, "paths": {**kept, "protect": protect}})
    try:
        return load_policy([LayerSource("l", (("p.yaml", text),))], {})
    except Exception:  # such as a read grant inside a write grant
        return None


def resolved(path: str, access: Access) -> str:
    """As `check path` does: of what is deleted, the name itself."""
    if access is not Access.DELETE:
        return os.path.realpath(path)
    above, _, name = path.rpartition("/")
    return f"{os.path.realpath(above)}/{name}"


def act(access: Access, path: str) -> int:
    """Do it; the errno, 0 where it was allowed. An empty file that may be executed is no program (ENOEXEC)."""
    try:
        match access:
            case Access.READ:
                os.close(os.open(path, os.O_RDONLY))
            case Access.WRITE if os.path.isdir(path):
                os.close(os.open(path, os.O_TMPFILE | os.O_WRONLY, 0o600))
            case Access.WRITE:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o755))
            case Access.DELETE if os.path.isdir(path) and not os.path.islink(path):
                os.rmdir(path)
            case Access.DELETE:
                os.unlink(path)
            case Access.EXECUTE:
                os.execv(path, [path])
    except OSError as error:
        return 0 if error.errno == errno.ENOEXEC else error.errno or -1
    return 0


def confine(grants: Grants, protection: Protection, empty: str) -> None:
    """As the launcher does."""
    namespaces.unshare(namespaces.NEWNS)
    namespaces.make_mounts_private()
    mounts.Holding(empty).lay(protection.held)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    process.set_no_new_privs()
    with landlock.Ruleset() as rules:
        for paths, rights in ((grants.read, landlock.READ), (grants.write, landlock.WRITE)):
            for path in paths:
                if os.path.lexists(path):
                    rules.allow_path(path, rights)
        rules.restrict_self()


def told(piece: Callable[[], list[object]]) -> list[list[object]]:
    """What `piece` returns in a child of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, json.dumps(piece()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        text = answer.read()
    os.waitpid(child, 0)
    found: list[list[object]] = json.loads(text)
    return found


def outcomes(base: Path, acts: list[tuple[Access, str]]) -> list[object]:
    """Each act with what it was meant for, as it was right before, and its errno."""
    found: list[object] = []
    for access, name in acts:
        path = str(base / name)
        target = resolved(path, access)
        existed = os.path.lexists(target)
        kind = "directory" if os.path.isdir(target) and not os.path.islink(target) else "file"
        found.append([str(access), path, target, existed, kind, act(access, path)])
    return found


@pytest.mark.root
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(tree=TREES, rules=RULES, acts=ACTS)
@example(
    tree={"directories": ["c"], "files": [], "links": {"c/.env": "home"}},
    rules={"write": ["c"], "read": [], "protect": [".env"]},
    acts=[(Access.WRITE, "home/f")],
)
def test_the_kernel_and_decide_agree(
    place: Path,
    tmp_path: Path,
    tree: dict[str, list[str] | dict[str, str]],
    rules: dict[str, list[str]],
    acts: list[tuple[Access, str]],
) -> None:
    base = place / "t"
    shutil.rmtree(base, ignore_errors=True)
    plant(base, tree, rules["write"])
    policy = ruled(base, rules)
    if policy is None:
        return
    home = str(base / "home")
    grants = path_grants(policy, home=home, tmpdir="")
    protected = Protected(policy, home)
    roots = outermost(os.path.realpath(root) for root in grants.write if os.path.lexists(root))
    protection = compile_protection(protected, roots, str(base / "a"), Bounds())
    (tmp_path / "private").mkdir(exist_ok=True)
    (tmp_path / "empty").touch()
    assert reserve(protection.reserved, home, str(tmp_path), Owner(NOBODY, NOBODY)) == ()
    there = {os.path.realpath(path) for path in [*map(str, base.rglob("*"))]} | {str(p) for p in base.rglob("*")}
    pinned = {path for path, _ in protection.held}
    reserved = {name.path for name in protection.reserved}
    led_to = [path for path, how in protection.held if how is Hold.READ_ONLY and protected.rule_of(path) is None]

    def session() -> list[object]:
        confine(grants, protection, str(tmp_path / "empty"))
        return outcomes(base, acts)

    weak = "; ".join(protection.weak)
    for access, path, target, existed, kind, number in told(session):
        request = PathRequest(Access(access), str(target), TODAY, ORIGIN, home=home)
        permitted = decide(policy, request).permitted
        said = f"{access} {path} -> {target}: decide {permitted}, errno {number}; {weak}"
        if number == 0 and not permitted:
            named = protected.rule_of(str(target)) is not None or protected.holds(str(target))
            new = target not in there and named
            assert new or weak, said
        elif permitted and number == errno.EROFS:
            assert any(covers(place, str(target)) for place in led_to), said  # by a protected symlink, or a second name
        elif permitted and number in (errno.EACCES, errno.EPERM):
            assert access == "execute" and (kind == "directory" or target in reserved), said  # neither is a program
        elif permitted and number == errno.EBUSY:
            assert target in pinned, said
        elif permitted and existed and kind == "file":
            assert number == 0, said
