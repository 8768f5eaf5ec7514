"""Protected places of a home that root owns for the time of a session, and gives back."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.daemon.base.spec import User
from agent.daemon.protection.owned import LIST, give_back
from agent.daemon.protection.owning import own, sticky_holds
from agent.session.plan import Hold
from tests.conftest import require

NOBODY = User("nobody", 65534, 65534, "/", "/bin/sh")
ATTACKS = """
cd "$1"
for act in 'echo x > rc' 'rm -f rc' 'mv rc y' 'mv mine rc' 'rm -rf deep' 'mv deep away' 'echo x > deep/kept' \
    'mv mine deep/kept' 'ln -f mine rc' 'chmod 777 rc' 'mv link z' 'echo x > keys/a' 'touch keys/b' 'mv keys k' \
    'ln rc out && echo x > out'; do
    echo own > mine
    if eval "$act" 2> /dev/null; then echo "did: $act"; fi
done
cat rc keys/a && echo y > new && mkdir made && touch deep/other && rm -r new made deep/other && echo done
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home of nobody's that everybody can reach."""
    require(os.geteuid() == 0, "ownership needs root")
    made = Path("/tmp") / f"home-{os.getpid()}"
    for name in ("rc", "deep/kept", "keys/a"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text("old\n")
    (made / "link").symlink_to("elsewhere")
    (made / "rc").chmod(0o600)
    subprocess.run(["chown", "-hR", "65534:65534", made], check=True)
    yield made
    subprocess.run(["rm", "-rf", made], check=True)


def state(home: Path) -> dict[str, tuple[int, int, int]]:
    found = {str(path): path.lstat() for path in (home, *home.rglob("*"))}
    return {name: (info.st_uid, info.st_gid, info.st_mode) for name, info in found.items()}


def test_what_root_owns_in_a_home_stays_and_everything_else_goes_on(home: Path, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    before = state(home)
    held = {
        "deep": Hold.PIN, "deep/kept": Hold.READ_ONLY, "rc": Hold.READ_ONLY, "keys": Hold.READ_ONLY, "link": Hold.PIN,
    }  # fmt: skip
    places = tuple((str(home / name), how) for name, how in held.items())
    assert own((*places, ("/elsewhere/x", Hold.READ_ONLY)), str(home), str(tmp_path), NOBODY) == places
    assert (tmp_path / LIST).exists()
    tried = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/bin/sh", "-c", ATTACKS, "-", home],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert tried.stdout == "old\nold\ndone\n", tried.stderr
    (home / "mine").unlink()
    give_back(str(tmp_path))
    assert state(home) == before


def test_that_a_sticky_directory_holds_is_found_by_trying(home: Path) -> None:
    assert sticky_holds(str(home.parent), NOBODY)
    assert not sticky_holds(str(home.parent), User("root", 0, 0, "/", "/bin/sh"))


def test_only_the_very_file_is_given_back(home: Path, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    own(((str(home / "rc"), Hold.READ_ONLY),), str(home), str(tmp_path), NOBODY)
    (home / "rc").rename(home / "kept")
    (home / "rc").write_text("another")
    give_back(str(tmp_path))
    assert (home / "rc").stat().st_uid == 0
    assert (home / "kept").stat().st_uid == 0


def test_another_name_of_somebody_elses_file_does_not_open_it(home: Path, tmp_path: Path) -> None:
    """A hard link is the session's to make where the kernel does not guard them (sysctl fs.protected_hardlinks)."""
    (tmp_path / "private").mkdir()
    shadow = home.parent / f"{home.name}-shadow"
    shadow.write_text("secret")
    shadow.chmod(0o640)
    os.link(shadow, home / "linked")
    try:
        places = tuple((str(home / name), Hold.READ_ONLY) for name in ("linked", "rc"))
        assert own(places, str(home), str(tmp_path), NOBODY) == places
        assert (shadow.stat().st_gid, shadow.stat().st_mode & 0o777) == (0, 0o640)
        shadow.chmod(0o666)
        assert own(places, str(home), str(tmp_path), NOBODY) == places[1:]
    finally:
        shadow.unlink()
        give_back(str(tmp_path))
