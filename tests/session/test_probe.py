"""The probe says what is really there."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from pathlib import Path

import pytest

from agent.session import probe as trials
from agent.session.doors import Capture
from agent.session.probe import probe
from tests.conftest import require
from tests.linux.forked import told


def test_the_probe_agrees_with_the_kernel_and_leaves_nothing_behind() -> None:
    require(os.geteuid() == 0, "namespaces without restrictions need root")
    can = subprocess.run(["unshare", "--net", "true"], check=False).returncode == 0
    found = told(_probed)  # in a mount namespace of its own: others mount on this machine, too
    captures = found.pop("captures")
    landlock = max(0, ctypes.CDLL(None).syscall(444, None, 0, 1))
    assert found == {"landlock": landlock, "jail": can, "clean": True}
    assert captures or not (can and _has_tproxy())


def _probed() -> dict[str, object]:
    before = _surroundings()
    offer = probe()
    captures = offer.capture is Capture.EVERY_PORT
    clean = _surroundings() <= before  # what others remove from under a mount is gone here, too
    return {"landlock": offer.landlock, "jail": offer.jail == "root", "captures": captures, "clean": clean}


def _surroundings() -> set[str]:
    """The namespaces and mounts of this process."""
    namespaces = {os.readlink(f"/proc/self/ns/{name}") for name in ("net", "mnt", "user")}
    return namespaces | set(Path("/proc/self/mounts").read_text().splitlines())


def _has_tproxy() -> bool:
    """As nft(8) sees it, in a namespace of its own."""
    rules = "add table inet t; add chain inet t c {type filter hook prerouting priority -150;};"
    rules += "add rule inet t c meta l4proto tcp tproxy to :1"
    return subprocess.run(["unshare", "--net", "nft", rules], check=False, capture_output=True).returncode == 0


def test_a_trial_that_hangs_is_ended_and_offers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang() -> int:
        while True:
            signal.pause()

    with monkeypatch.context() as hurried:
        hurried.setattr(trials, "TRIAL_SECONDS", 0.2)
        assert trials._child(hang) == trials.REFUSED
    assert trials._child(lambda: 0) == 0
