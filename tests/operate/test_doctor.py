"""What `doctor` says that no level shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.operate import doctor
from agent.session.levels import Offer

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
