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


def test_the_probe_agrees_with_the_kernel_and_leaves_nothing_behind() -> None:
    require(os.geteuid() == 0, "namespaces without restrictions need root")
    namespaces = {name: os.readlink(f"/proc/self/ns/{name}") for name in ("net", "mnt", "user")}
    mounts = Path("/proc/self/mounts").read_text()
    offer = probe()
    assert offer.landlock == max(0, ctypes.CDLL(None).syscall(444, None, 0, 1))
    can = subprocess.run(["unshare", "--net", "true"], check=False).returncode == 0
    assert (offer.jail == "root") is can
    assert offer.capture is (Capture.EVERY_PORT if can and _has_tproxy() else offer.capture)
    assert {name: os.readlink(f"/proc/self/ns/{name}") for name in namespaces} == namespaces
    assert Path("/proc/self/mounts").read_text() == mounts


def _has_tproxy() -> bool:
    """As nft(8) sees it, in a namespace of its own."""
    rules = "add table inet t; add chain inet t c {type filter hook prerouting priority -150;};"
    rules += "add rule inet t c meta l4proto tcp tproxy to :1"
    return subprocess.run(["unshare", "--net", "nft", rules], check=False, capture_output=True).returncode == 0


def test_a_trial_that_hangs_is_ended_and_offers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "TRIAL_SECONDS", 0.2)

    def hang() -> int:
        while True:
            signal.pause()

    assert trials._child(hang) == trials.REFUSED
    assert trials._child(lambda: 0) == 0
