"""The kernel's grants are the decisions' grants."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.policy.decide import decide
from agent.policy.decision import Verdict
from agent.policy.grants import DEVICES, Grants, path_grants
from agent.policy.load import PolicyError
from agent.policy.model import Policy
from agent.policy.paths import covers
from tests.policy.given import path, policy

HOME, TMP = "/home/session", "/tmp/session-1"


def grants(*layers: str) -> Grants:
    return path_grants(policy(*layers), home=HOME, tmpdir=TMP)


def test_one_layer_is_granted_as_written_with_what_is_always_there() -> None:
    given = grants("paths: {write: [/w, /tmp], read: [/usr, /etc]}")
    assert given.write == ("/home/session", "/tmp", "/w")
    assert given.read == ("/etc", "/proc", "/usr")


def test_an_empty_policy_grants_home_tmpdir_and_proc_only() -> None:
    assert grants("version: 1") == Grants(read=("/proc",), write=(HOME, TMP))


def test_a_policy_without_layers_grants_no_more() -> None:
    assert path_grants(Policy((), ""), home=HOME, tmpdir=TMP) == Grants(read=("/proc",), write=(HOME, TMP))


def test_layers_are_intersected_and_the_deeper_tree_wins() -> None:
    given = grants("paths: {write: [/w, /v], read: [/usr]}", "paths: {write: [/w/a, /x], read: [/usr/lib, /etc]}")
    assert given.write == (HOME, TMP, "/w/a")
    assert given.read == ("/proc", "/usr/lib")


def test_a_write_grant_that_a_further_layer_takes_away_may_still_be_read() -> None:
    given = grants("paths: {write: [/w], read: [/usr]}", "paths: {write: []}")
    assert given.write == (HOME, TMP)
    assert given.read == ("/proc", "/usr", "/w")


def test_a_further_layer_without_paths_changes_nothing() -> None:
    base = "paths: {write: [/w], read: [/usr]}"
    assert grants(base) == grants(base, "version: 1") == grants(base, "paths: {}")


def test_proc_self_is_never_granted_literally_and_devices_are_kept_apart() -> None:
    given = grants("paths: {read: [/usr]}")
    assert not any(root.startswith("/proc/") for root in given.read)
    assert "/dev/null" in DEVICES and not any(root.startswith("/dev") for root in (*given.read, *given.write))


def test_the_agents_files_inside_a_granted_tree_are_named_for_hiding() -> None:
    assert grants("paths: {read: [/usr]}").agent_files == ()
    assert grants("paths: {read: [/etc]}").agent_files == ("/etc/parhelia",)
    assert grants("paths: {read: [/]}").agent_files == ("/etc/parhelia", "/run/parhelia", "/vol/parhelia/audit")


def test_an_unknown_home_is_not_granted() -> None:
    for home in ("", "/"):
        assert path_grants(policy("version: 1"), home=home, tmpdir="").write == ()


TREES = st.lists(st.sampled_from(["/", "/a", "/a/b", "/a/b/c", "/d", "/d/e"]), max_size=2, unique=True)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(TREES, TREES), min_size=1, max_size=3), st.sampled_from(["/a", "/a/b/c/x", "/d/e", "/d", "/z"])
)
def test_the_grants_cover_exactly_what_decide_allows(layers: list[tuple[list[str], list[str]]], place: str) -> None:
    texts = [f"paths: {{write: {write}, read: {read}}}".replace("'", "") for write, read in layers]
    try:
        loaded = policy(*texts)
    except PolicyError:  # a grant inside another one
        return
    granted = path_grants(loaded, home="", tmpdir="")
    for access, roots in (("write", granted.write), ("read", (*granted.write, *granted.read))):
        decision = decide(loaded, path(access, place, home="", tmpdir=""))
        assert (decision.verdict is Verdict.ALLOW) is any(covers(root, place) for root in roots)
