"""`policy explain paths`: grants with their origin, and what holds protected places on this machine."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from agent.cli import explain_paths
from agent.cli.main import main
from agent.session.levels import Offer

NATIVE = Offer(root=True, jail="root", mounts=True, landlock=7, seccomp=True, notify=True)
GVISOR = Offer(root=True, jail="user", mounts=True, landlock=0, seccomp=True, notify=False)
DOCKER = Offer(root=True, jail=None, mounts=False, landlock=7, seccomp=True, notify=True, connect=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    (tmp_path / "w/p/.git").mkdir(parents=True)
    (tmp_path / "w/.env").touch()
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy/x.yaml").write_text(
        f"version: 1\npaths: {{write: [{tmp_path}/w], read: [{{id: programs, path: /usr}}, /etc],\n"
        "  protect: [{id: env, path: .env}, {id: hooks, path: '.git/hooks/**'}, {id: none, path: 'x*y'}],\n"
        "  watch: [.rc]}\n"
    )
    return tmp_path


def said(tree: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main(["policy", "explain", "paths", "--policy", str(tree / "policy"), "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize(("offer", "by"), [(NATIVE, "mount"), (DOCKER, "nothing")])
def test_each_place_is_named_with_what_holds_it(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, offer: Offer, by: str
) -> None:
    monkeypatch.setattr(explain_paths, "probe", lambda: offer)
    monkeypatch.setattr(explain_paths, "_bounds", explain_paths.Bounds)  # pytest's directories are root's alone
    found = said(tree, capsys)
    assert {(entry["path"], entry["how"], entry["by"]) for entry in found["places"]} == {  # type: ignore[attr-defined]
        (f"{tree}/w/.env", "read-only", by),
        (f"{tree}/w/p", "held in its place", by),
        (f"{tree}/w/p/.git", "held in its place", by),
        (f"{tree}/w/p/.git/hooks", "reserved, read-only", by),
    }
    rules = {entry["rule"]: entry["by"] for entry in found["protect"]}  # type: ignore[attr-defined]
    assert rules == {"env": f"{by} (1 place)", "hooks": f"{by} (1 place)", "none": explain_paths.ASKED}
    assert bool(found["unheld"]) is (by == "nothing")
    assert found["level"]["level"] == ("enforced" if by == "mount" else "partial")  # type: ignore[index]
    assert not os.path.lexists(tree / "w/p/.git/hooks")


def test_each_grant_is_named_with_its_rule(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grants = {entry["path"]: entry for entry in said(tree, capsys)["grants"]}  # type: ignore[attr-defined]
    assert grants["/usr"]["origin"] == [{"rule": "programs", "where": f"{tree}/policy/x.yaml:2"}]
    assert grants["/proc"]["origin"] == [{"rule": "always", "where": None}]
    assert grants[f"{tree}/w"]["access"] == "write"


@pytest.mark.parametrize(
    ("offer", "by", "hidden"),
    [
        (NATIVE, "Landlock (ABI 7), mounts", "mounts"),
        (DOCKER, "Landlock (ABI 7)", "Landlock (ABI 7), never granted"),
        (GVISOR, "mounts", "mounts"),
        (replace(GVISOR, mounts=False), "file permissions", "file permissions, never granted"),
    ],
)
def test_each_grant_is_named_with_what_holds_it_here(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, offer: Offer, by: str, hidden: str
) -> None:
    monkeypatch.setattr(explain_paths, "probe", lambda: offer)
    grants = {entry["access"]: entry["by"] for entry in said(tree, capsys)["grants"]}  # type: ignore[attr-defined]
    assert grants == {"write": by, "read": by, "device": by, "hidden": hidden}


def test_the_page_has_the_same(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "explain", "paths", "--policy", str(tree / "policy")]) == 0
    page = capsys.readouterr().err
    assert f"  write  {tree}/w  paths.write[0] ({tree}/policy/x.yaml:2)" in page
    assert "  .rc  paths.watch[0]" in page


@pytest.mark.parametrize(
    ("asked", "offer", "recorded"),
    [
        ("none", NATIVE, {}),
        ("writes", NATIVE, {"writes": "seccomp user notification"}),
        ("[writes, reads]", GVISOR, {"writes": explain_paths.NOT_HERE, "reads": explain_paths.NOT_HERE}),
    ],
)
def test_what_is_recorded_is_said_with_its_mechanism(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    asked: str, offer: Offer, recorded: dict[str, str],
) -> None:  # fmt: skip
    monkeypatch.setattr(explain_paths, "probe", lambda: offer)
    (tree / "policy/y.yaml").write_text(f"version: 1\npaths: {{audit: {asked}}}\n")
    assert said(tree, capsys)["recorded"] == recorded


def test_where_denied_reads_are_recorded_the_places_are_named(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain_paths, "probe", lambda: replace(NATIVE, reads=True))
    (tree / "policy/y.yaml").write_text("version: 1\npaths: {audit: reads}\n")
    assert main(["policy", "explain", "paths", "--policy", str(tree / "policy")]) == 0
    page = capsys.readouterr().err
    assert "recorded where it is denied, whoever asks" in page
    assert "fanotify, of sensitive files in " in page
    places = page.partition("of sensitive files in ")[2].partition(";")[0].split(", ")
    assert "/root" in places
    assert "/run" not in places, "the session has the agent's public directory there"
