"""Where decoys lie: only where the session could not read before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.daemon.launch.decoying import Sight, others_homes, place_decoys, sensitive_names, sight_of
from agent.policy.paths import below, covers
from tests.conftest import open_way, require
from tests.policy.given import policy

PARTS = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(PARTS, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


def sight(seen: tuple[str, ...], closed: frozenset[str] = frozenset(), hidden: frozenset[str] = frozenset()) -> Sight:
    return Sight(seen, hidden, lambda path, through: path in closed)


@pytest.fixture
def tree(tmp_path: Path) -> str:
    for name in ("home/own", "home/other/.ssh", "etc/private", "run"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("home/other/.ssh/id_rsa", "etc/shadow", "etc/passwd", "etc/private/key"):
        (tmp_path / name).touch()
    (tmp_path / "var-run").symlink_to("run")
    (tmp_path / "run/token").touch()
    return str(tmp_path)


def test_a_decoy_lies_where_the_way_ends_for_the_session(tree: str) -> None:
    names = [f"{tree}/{name}" for name in ("home/other/.ssh/id_rsa", "home/other/.netrc", "etc/shadow", "etc/passwd")]
    names += [f"{tree}/etc/private/", f"{tree}/etc/private/key", f"{tree}/etc/gone", f"{tree}/var-run/token"]
    closed = frozenset({f"{tree}/etc/shadow", f"{tree}/etc/private"})
    found = place_decoys(names, sight((f"{tree}/home/own", f"{tree}/etc"), closed))
    assert {place.removeprefix(f"{tree}/"): shown for place, shown in found} == {
        "home/other": (".netrc", ".ssh/id_rsa"),
        "etc/shadow": (),
        "etc/private": ("", "key"),
        "run": ("token",),
    }


def test_what_a_mount_hides_has_one_whatever_its_permissions_say(tree: str) -> None:
    hidden = frozenset({f"{tree}/etc/passwd"})
    assert place_decoys([f"{tree}/etc/passwd"], sight((tree,), hidden=hidden)) == ((f"{tree}/etc/passwd", ()),)


@given(st.frozensets(PATHS, max_size=4), st.frozensets(PATHS, max_size=4), PATHS)
def test_no_decoy_covers_what_the_session_can_reach(seen: frozenset[str], closed: frozenset[str], path: str) -> None:
    found = Sight(tuple(seen), frozenset(), lambda place, through: place in closed).obstacle(path)
    if found is None:
        return
    assert covers(found, path)
    assert not any(below(found, root) for root in seen)
    assert found in closed or not any(covers(root, found) for root in seen)


def test_file_permissions_are_asked_of_the_kernel_with_the_accounts_own_eyes(tmp_path: Path) -> None:
    require(os.geteuid() == 0, "root, to look with another account's eyes")
    open_way(tmp_path)
    (tmp_path / "open").touch(0o644)
    (tmp_path / "shut").touch(0o600)
    (tmp_path / "private").mkdir(0o700)
    (tmp_path / "listed").mkdir(0o711)
    base = os.path.realpath(tmp_path)
    eyes = sight_of((base,), (), 65534, 65534).closed
    asked = [(name, through) for name in ("open", "shut", "private", "listed", "gone") for through in (False, True)]
    came = {(name, through): eyes(f"{base}/{name}", through) for name, through in asked}
    assert [name for name, through in asked if not through and came[name, through]] == ["shut", "private", "listed"]
    assert came["private", True]
    assert not came["listed", True]


def test_of_a_directory_that_the_policy_names_what_is_there_is_sensitive_too(tree: str) -> None:
    os.symlink("/usr", f"{tree}/etc/elsewhere")
    names = sensitive_names(policy(f"paths: {{sensitive: ['{tree}/etc', '{tree}/etc/passwd']}}"), (), "/home/session")
    here = [name.removeprefix(f"{tree}/etc") for name in names if name.startswith(f"{tree}/etc")]
    assert sorted({*here}) == ["/", "/elsewhere/", "/passwd", "/private/", "/private/key", "/shadow"]


def test_neither_the_sessions_own_home_nor_what_it_may_write_is_sensitive() -> None:
    homes = [*others_homes("/root")]
    assert "/root" in homes
    names = sensitive_names(policy("paths: {sensitive: [/etc/own, /srv/gone]}"), ("/etc", "/root"), "/home/session")
    assert "/srv/gone" in names
    assert [name for name in names if name.startswith(("/etc/", "/root/", "/home/session/"))] == []
