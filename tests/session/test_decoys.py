"""Decoys, laid for real in a mount namespace of a child's."""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.linux import fanotify, namespaces
from agent.session.decoys import Decoys
from agent.session.plan import Decoy
from tests.session.test_view import told

pytestmark = pytest.mark.root
SECRET = "the secret"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("home/.ssh", "ground", "real"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("home/.ssh/id_rsa", "shadow", "real/file", "home/other"):
        (tmp_path / name).write_text(SECRET)
    (tmp_path / "link").symlink_to("real")
    return tmp_path


def result(act: Callable[[], object]) -> str:
    try:
        found = act()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return str(found)


def laid(
    tree: Path, decoys: tuple[Decoy, ...], acts: dict[str, Callable[[], object]], *, fresh: bool = False
) -> tuple[list[str], list[str]]:
    """Where decoys are, and what came of each act. `fresh`: /run is an empty directory of the session's."""

    def piece() -> tuple[list[str], list[str]]:
        kept: list[int] = []
        if fresh:
            namespaces.tmpfs("/run", size="64k")
        made = Decoys(decoys, str(tree / "ground"), lambda group: kept.append(os.dup(group)))

        def answer() -> None:
            while True:
                select.select(kept, [], [])
                opening = fanotify.receive(kept[0])
                if opening is not None:
                    fanotify.refuse(kept[0], opening.file)
                    os.close(opening.file)

        threading.Thread(target=answer, daemon=True).start()
        return [os.readlink(f"/proc/self/fd/{place}") for place in made.show(fresh=fresh)], [
            result(act) for act in acts.values()
        ]

    shown, came = told(piece)
    return [path.removeprefix(f"{tree}/") for path in shown], came


def test_a_decoy_is_empty_read_only_and_refused_however_it_is_opened(tree: Path) -> None:
    home, shadow = tree / "home", tree / "shadow"
    acts: dict[str, tuple[Callable[[], object], str]] = {
        "read": ((home / ".ssh/id_rsa").read_text, "EPERM"),
        "list": (lambda: os.listdir(home), "EPERM"),
        "list below": (lambda: os.listdir(home / ".ssh"), "EPERM"),
        "a file": (shadow.read_text, "EPERM"),
        "size": (lambda: shadow.stat().st_size, "0"),
        "not named": ((home / "other").read_text, "ENOENT"),
        "make": ((home / "new").mkdir, "EROFS"),
        "mode": (lambda: shadow.chmod(0o777), "EROFS"),
        "remove": ((home / ".ssh/id_rsa").unlink, "EROFS"),
        "remove the place": (shadow.unlink, "EBUSY"),
        "rename the place": (lambda: home.rename(tree / "moved"), "EBUSY"),
        "beside": ((tree / "real/file").read_text, SECRET),
    }
    decoys = ((str(home), (".ssh/id_rsa", ".gnupg/")), (str(shadow), ()))
    shown, came = laid(tree, decoys, {name: act for name, (act, _) in acts.items()})
    assert shown == ["home", "shadow"]
    assert dict(zip(acts, came, strict=True)) == {name: expected for name, (_, expected) in acts.items()}
    assert shadow.read_text() == SECRET


def test_what_is_not_there_or_of_another_kind_or_behind_a_link_gets_none(tree: Path) -> None:
    decoys = (
        (str(tree / "gone"), ()),
        (str(tree / "gone/too"), ("x",)),
        (str(tree / "shadow"), ("",)),
        (str(tree / "home"), ()),
        (str(tree / "link"), ("",)),
        (str(tree / "link/file"), ()),
    )
    acts = {path: (lambda path=path: Path(path).read_text()) for path in (f"{tree}/shadow", f"{tree}/real/file")}
    assert laid(tree, decoys, acts) == ([], [SECRET, SECRET])


def test_names_that_contradict_each_other_end_no_launch(tree: Path) -> None:
    decoys = ((str(tree / "home"), ("", "a", "a/b", "c/", "c", "d/e")),)
    shown, came = laid(tree, decoys, {name: (lambda name=name: os.lstat(tree / "home" / name).st_size) for name in "a"})
    assert (shown, came) == (["home"], ["0"])


@pytest.mark.parametrize(("fresh", "shown"), [(True, ["/run/parhelia-secrets"]), (False, [])])
def test_in_an_empty_run_of_the_sessions_own_places_are_made_for_them(
    tree: Path, fresh: bool, shown: list[str]
) -> None:
    decoys = (("/run/parhelia-secrets", ("", "token")), ("/run/parhelia-x/secrets", ("",)), ("/run/parhelia-file", ()))
    token = Path("/run/parhelia-secrets/token")
    acts: dict[str, Callable[[], object]] = {"read": token.read_text, "list": lambda: os.listdir(token.parent)}
    assert laid(tree, decoys, acts, fresh=fresh) == (shown, ["EPERM" if fresh else "ENOENT"] * 2)
    assert not token.parent.exists()
