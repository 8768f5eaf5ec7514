"""What `doctor` says that no level shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.operate import doctor
from agent.session.levels import Offer, Point

NATIVE = Offer(root=True, jail="root", mounts=True, landlock=7, seccomp=True, notify=True)


@pytest.mark.parametrize(
    ("offer", "said"),
    [
        (NATIVE, "mounts"),
        (replace(NATIVE, mounts=False), "ownership, in the home only (tried at the start)"),
        (replace(NATIVE, root=False, mounts=False), "nothing"),
    ],
)
def test_it_says_what_holds_protected_places(monkeypatch: pytest.MonkeyPatch, offer: Offer, said: str) -> None:
    monkeypatch.setattr(doctor, "probe", lambda: offer)
    assert doctor.examine()["mechanisms"]["protected_places"] == said


def of_paths(offer: Offer) -> str:
    return dict(doctor.unseen(offer))[Point.PATHS]


def test_where_denied_writes_can_be_recorded_it_says_how_and_what_stays_unseen() -> None:
    said = of_paths(NATIVE)
    assert "`paths.audit: writes`" in said
    for hole in ("reads", "open descriptors", "bind", "another thread"):
        assert hole in said


def test_where_they_cannot_it_says_so() -> None:
    said = of_paths(replace(NATIVE, notify=False))
    assert "unrecorded" in said
    assert "not available" in said


@pytest.mark.parametrize(
    ("offered", "mechanism", "words"), [(True, "fanotify", "O_PATH"), (False, "no", "not available")]
)
def test_it_says_whether_denied_reads_can_be_recorded(
    monkeypatch: pytest.MonkeyPatch, offered: bool, mechanism: str, words: str
) -> None:
    offer = replace(NATIVE, reads=offered)
    monkeypatch.setattr(doctor, "probe", lambda: offer)
    assert doctor.examine()["mechanisms"]["denied_reads"] == mechanism
    assert words in of_paths(offer).partition("`paths.audit: reads`")[2]
