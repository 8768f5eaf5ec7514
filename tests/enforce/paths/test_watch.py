"""What changes in a watched tree is told: with the kernel's own inotify, on a real file system."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.enforce.paths import watch as module
from agent.enforce.paths.areas import Area, named, whole
from agent.enforce.paths.changes import MANY, MAX_KEPT, Change, Changes
from agent.enforce.paths.spots import Spot
from agent.enforce.paths.watch import Watch
from agent.policy.watched import Patterns
from agent.record.event import Integrity

PATTERNS = Patterns([".git/hooks", ".git/config", ".env", "~/.bashrc"], "/nowhere")


class Watched:
    """A watch that runs, what it noted and what it said."""

    def __init__(self, areas: list[Area]) -> None:
        self.changes = Changes()
        self.said: list[str] = []
        self.watch = Watch(areas, self.changes, self.said.append)

    def seen(self) -> list[tuple[str, str]]:
        """(change, last name) of everything that happened so far."""
        assert self.watch.settle(120)
        return [(str(each.change), Path(each.path).name) for each in self.changes.take()]


@contextmanager
def watching(*areas: Area) -> Iterator[Watched]:
    watched = Watched(list(areas))
    watched.watch.start()
    try:
        assert watched.watch.settle(120)
        yield watched
    finally:
        watched.watch.stop()


def protected(root: Path, **fields: object) -> Area:
    return Area(Integrity.PROTECTED, str(root), PATTERNS, contents=True, digests=True, **fields)  # type: ignore[arg-type]


def repository(at: Path) -> Path:
    (at / ".git" / "hooks").mkdir(parents=True)
    (at / ".git" / "config").write_text("[core]\n")
    (at / ".git" / "hooks" / "pre-commit").write_text("exit 0\n")
    return at


def test_a_change_of_a_protected_file_is_told_and_one_beside_it_is_not(tmp_path: Path) -> None:
    repository(tmp_path / "repo")
    with watching(protected(tmp_path)) as watched:
        assert watched.seen() == []
        (tmp_path / "repo" / "main.py").write_text("x")
        (tmp_path / "repo" / ".git" / "index").write_text("x")
        assert watched.seen() == []
        (tmp_path / "repo" / ".git" / "hooks" / "pre-commit").write_text("curl x\n")
        assert ("modified", "pre-commit") in watched.seen()


def test_the_digest_of_what_was_there_before_is_known(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"")
    with watching(protected(tmp_path)) as watched:
        (tmp_path / ".env").write_text("KEY=x")
        assert watched.watch.settle(120)
        changes = watched.changes.take()
        assert {each.before for each in changes} == {"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda top: (top / ".env").write_text("x"), ("created", ".env")),
        (lambda top: (top / "old.env").unlink(), None),
        (lambda top: (top / "repo/.git/config").unlink(), ("deleted", "config")),
        (lambda top: (top / "repo/.git/config").chmod(0o777), ("attributes", "config")),
        (lambda top: (top / "repo/.git/hooks").chmod(0o777), ("attributes", "hooks")),
        (lambda top: (top / "old.env").rename(top / ".env"), ("moved", ".env")),
        (lambda top: (top / "old.env").rename(top / "repo/.git/config"), ("moved", "config")),
        (lambda top: (top / "repo/.git/hooks").rename(top / "away"), ("moved", "hooks")),
        (lambda top: (top / "repo").rename(top / "elsewhere"), ("moved", "pre-commit")),
        (lambda top: (top / ".env").symlink_to("/etc/passwd"), ("created", ".env")),
        (lambda top: (top / ".env").mkdir(), ("created", ".env")),
        (lambda top: os.mkfifo(top / ".env"), ("created", ".env")),
        (lambda top: os.link(top / "repo/.git/config", top / "twin"), ("attributes", "config")),
        (lambda top: os.truncate(top / "repo/.git/config", 0), ("modified", "config")),
        (lambda top: os.utime(top / "repo/.git/config", (1, 1)), ("attributes", "config")),
        (lambda top: shutil.rmtree(top / "repo"), ("deleted", "pre-commit")),
    ],
)
def test_each_way_to_change_a_protected_place_is_told(
    tmp_path: Path, act: Callable[[Path], object], expected: tuple[str, str] | None
) -> None:
    repository(tmp_path / "repo")
    (tmp_path / "old.env").write_text("x")
    with watching(protected(tmp_path)) as watched:
        act(tmp_path)
        seen = watched.seen()
    assert (expected in seen) if expected else (seen == [])


def test_a_write_through_a_hard_link_elsewhere_is_told(tmp_path: Path) -> None:
    repository(tmp_path / "repo")
    os.link(tmp_path / "repo/.git/config", tmp_path / "twin")
    with watching(protected(tmp_path)) as watched:
        with (tmp_path / "twin").open("a") as file:
            file.write("[alias]\n")
        assert ("modified", "config") in watched.seen()


def test_a_repository_that_is_made_later_at_any_depth_is_followed_however_quickly_it_is_filled(tmp_path: Path) -> None:
    with watching(protected(tmp_path)) as watched:
        for number in range(40):
            repository(tmp_path / "deep" / "er" / f"clone-{number}")
        assert watched.watch.settle(120)
        created = {each.path for each in watched.changes.take() if each.change is Change.CREATED}
        for number in range(40):
            top = f"{tmp_path}/deep/er/clone-{number}/.git"
            assert {f"{top}/config", f"{top}/hooks", f"{top}/hooks/pre-commit"} <= created
        (tmp_path / "deep/er/clone-7/.git/hooks/pre-push").write_text("x")
        assert ("created", "pre-push") in watched.seen()


def test_a_tree_that_is_moved_in_is_looked_through_and_followed(tmp_path: Path) -> None:
    area, outside = tmp_path / "area", tmp_path / "outside"
    area.mkdir()
    repository(outside / "repo")
    with watching(protected(area)) as watched:
        (outside / "repo").rename(area / "repo")
        assert ("created", "pre-commit") in watched.seen()
        (area / "repo/.git/hooks/pre-commit").write_text("y")
        assert ("modified", "pre-commit") in watched.seen()


def test_a_file_of_some_names_is_told_and_a_directory_of_the_same_name_is_not(tmp_path: Path) -> None:
    """The file by which git finds the repository of a work tree, and a repository."""
    pointer, late = tmp_path / "worktree" / ".git", tmp_path / "late" / ".git"
    pointer.parent.mkdir()
    pointer.write_text("gitdir: here\n")
    with watching(protected(tmp_path, files=frozenset({".git"}))) as watched:
        pointer.write_text("gitdir: elsewhere\n")
        assert set(watched.seen()) == {("modified", ".git")}
        late.mkdir(parents=True)
        (late / "index").write_text("x")
        late.rename(tmp_path / "late" / "git")
        late.symlink_to(tmp_path / "late" / "git")
        assert watched.seen() == [("created", ".git")]
        pointer.unlink()
        assert watched.seen() == [("deleted", ".git")]


def test_what_is_found_before_it_is_told_that_another_of_its_name_went_is_not_taken_for_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory is watched first and looked through then: what happened meanwhile is told after it was seen."""
    late, scan = tmp_path / "late", Watch._scan

    def scanned(watch: Watch, spot: Spot, at: int) -> list[tuple[str, os.stat_result]]:
        if spot.path == str(late) and not os.path.lexists(late / ".git"):
            (late / ".git").mkdir()
            (late / ".git").rename(late / "git")
            (late / ".git").symlink_to(late / "git")
        return scan(watch, spot, at)

    monkeypatch.setattr(Watch, "_scan", scanned)
    with watching(protected(tmp_path, files=frozenset({".git"}))) as watched:
        late.mkdir()
        assert watched.seen() == [("created", ".git")]
        (late / ".git").unlink()
        assert watched.seen() == [("deleted", ".git")]


def test_a_directory_that_becomes_a_protected_place_by_its_name_is_told_with_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "git/hooks").mkdir(parents=True)
    (tmp_path / "git/hooks/pre-commit").write_text("x")
    with watching(protected(tmp_path)) as watched:
        (tmp_path / "git").rename(tmp_path / ".git")
        assert ("created", "pre-commit") in watched.seen()


def test_what_the_session_did_before_the_watching_began_is_told_by_its_time(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("old")
    since = time.time_ns()
    while time.time_ns() < since + 20_000_000:  # more than a tick of the kernel's file clock
        time.sleep(0.001)
    repository(tmp_path / "repo")
    with watching(protected(tmp_path, since=since, owner=os.geteuid())) as watched:
        assert set(watched.seen()) == {("modified", "config"), ("modified", "hooks"), ("modified", "pre-commit")}


def test_the_watcher_follows_no_link_out_of_its_area(tmp_path: Path) -> None:
    area, outside = tmp_path / "area", tmp_path / "outside"
    area.mkdir()
    repository(outside)
    with watching(protected(area)) as watched:
        (area / "link").symlink_to(outside)
        (area / ".git").symlink_to(outside / ".git")
        (area / ".env").symlink_to(outside / ".git" / "config")
        assert watched.seen() == [("created", ".env")]
        (outside / ".git/hooks/x").write_text("x")
        (outside / ".git/config").write_text("x")
        assert watched.seen() == []


def test_a_directory_that_is_swapped_for_a_link_again_and_again_leads_nowhere(tmp_path: Path) -> None:
    area, outside = tmp_path / "area", tmp_path / "outside"
    (area / "d").mkdir(parents=True)
    (area / "d2").symlink_to(outside)
    repository(outside)
    before = (outside / ".git/hooks").stat()
    with watching(protected(area)) as watched:
        for _ in range(300):
            (area / "d").rename(area / "t")
            (area / "d2").rename(area / "d")
            (area / "t").rename(area / "d2")
        watched.seen()
        (outside / ".git/hooks/x").write_text("x")
        assert watched.seen() == []
    assert before.st_ino == (outside / ".git/hooks").stat().st_ino


def test_a_leased_file_and_a_fifo_hold_nobody_up(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("x")
    holds = (
        "import fcntl, os, signal, sys; signal.signal(signal.SIGIO, signal.SIG_IGN)\n"
        "fcntl.fcntl(os.open(sys.argv[1], os.O_RDWR), fcntl.F_SETLEASE, fcntl.F_WRLCK)\n"
        "print(flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", holds, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        with watching(protected(tmp_path)) as watched:
            (tmp_path / "sub").mkdir()
            os.mkfifo(tmp_path / "sub/.env")
            assert ("created", ".env") in watched.seen()
    finally:
        holder.communicate(timeout=60)


def test_a_lost_notification_is_said_and_what_differs_is_found(tmp_path: Path) -> None:
    repository(tmp_path / "repo")
    (tmp_path / ".env").write_text("x")
    gate = threading.Event()
    with watching(protected(tmp_path)) as watched:
        held = watched.watch.on_event
        watched.watch.on_event = lambda event: (gate.wait(60), held(event))[1]  # type: ignore[method-assign, func-returns-value]
        limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        for number in range(limit + 8192):
            (tmp_path / f"f{number % 7}-{number}").touch()  # names that differ, so that the kernel merges none
        (tmp_path / "repo/.git/hooks/pre-commit").write_text("longer than before\n")
        (tmp_path / "repo/.git/hooks/post-merge").write_text("x")
        (tmp_path / ".env").unlink()
        gate.set()
        seen = watched.seen()
    assert {("modified", "pre-commit"), ("created", "post-merge"), ("deleted", ".env")} <= set(seen)
    assert any("some are not in the log" in text for text in watched.said)


def test_what_the_bounds_leave_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "room", lambda: 12)
    monkeypatch.setattr(module, "MAX_FILES", 2)
    for number in range(9):
        repository(tmp_path / f"r{number}")
    with watching(protected(tmp_path, depth=3)) as watched:
        assert any("directories of protected places" in text for text in watched.said)
        shutil.rmtree(tmp_path / "r0")
        (tmp_path / "a/b/c/d/e").mkdir(parents=True)
        watched.seen()
    (tmp_path / "flat").mkdir()
    for number in range(4):
        (tmp_path / "flat" / str(number)).mkdir()
        (tmp_path / "flat" / str(number) / ".env").touch()
    with watching(protected(tmp_path / "flat")) as watched:
        assert any("2 protected files" in text for text in watched.said)


def test_a_hundred_thousand_changes_are_counted_in_bounded_memory(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    with watching(protected(tmp_path)) as watched:
        for number in range(5000):
            (tmp_path / ".env" / f"x{number}").touch()
            (tmp_path / ".env" / f"x{number}").unlink()
        assert watched.watch.settle(120)
        taken = watched.changes.take()
    assert len(taken) <= MAX_KEPT + len(Change)
    assert taken[-1].path == MANY or any(each.path == MANY for each in taken)
    created = sum(each.count for each in taken if each.change is Change.CREATED)
    assert created == 5000 or any("some are not in the log" in text for text in watched.said)


def test_places_that_do_not_exist_yet_are_told_when_they_appear(tmp_path: Path) -> None:
    with watching(*named(Integrity.SETTINGS, [str(tmp_path / "codex"), str(tmp_path / "cursor")])) as watched:
        (tmp_path / "other").mkdir()
        (tmp_path / "codex").mkdir()
        (tmp_path / "codex/requirements.toml").write_text("x")
        seen = watched.seen()
        assert ("created", "codex") in seen
        assert any(name == "requirements.toml" for _, name in seen)
        assert not any(name == "other" for _, name in seen)


def test_every_file_of_a_whole_tree_is_told_but_not_what_python_compiles(tmp_path: Path) -> None:
    (tmp_path / "agent" / "__pycache__").mkdir(parents=True)
    (tmp_path / "agent" / "gate.py").write_text("x")
    with watching(*whole(Integrity.AGENT, [str(tmp_path), str(tmp_path / "missing")])) as watched:
        (tmp_path / "agent" / "__pycache__" / "gate.pyc").write_text("x")
        assert watched.seen() == []
        (tmp_path / "agent" / "gate.py").write_text("y")
        assert ("modified", "gate.py") in watched.seen()


def test_the_kernels_watches_are_given_back(tmp_path: Path) -> None:
    repository(tmp_path / "repo")
    with watching(protected(tmp_path)) as watched:
        for _ in range(200):
            shutil.rmtree(tmp_path / "repo")
            repository(tmp_path / "repo")
            (tmp_path / "repo").rename(tmp_path / "away")
            (tmp_path / "away").rename(tmp_path / "repo")
        watched.seen()
        assert len(watched.watch._spots) < 20
        assert (watched.watch._directories[True], watched.watch._files) == (4, 2)


def test_where_the_kernel_gives_no_inotify_everything_is_looked_at_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> None:
        raise OSError(24, "inotify instance limit reached")

    monkeypatch.setattr(module, "Reader", none_left)
    repository(tmp_path / "repo")
    (tmp_path / ".env").write_text("x")
    with watching(protected(tmp_path, since=0, owner=os.geteuid())) as watched:
        assert "inotify instance limit reached" in watched.said[0]
        watched.seen()  # what was found at first, by its time
        assert watched.seen() == []
        (tmp_path / "repo/.git/hooks/pre-commit").write_text("longer than before\n")
        (tmp_path / ".env").unlink()
        repository(tmp_path / "clone")
        seen = watched.seen()
    assert {("modified", "pre-commit"), ("deleted", ".env"), ("created", "config"), ("created", "hooks")} <= set(seen)
