"""Canaries tell who got through, by what arrived and not by what the caller thinks."""

from __future__ import annotations

import socket

import pytest

from agent.daemon.launch.canary import Canaries
from agent.linux import namespaces, process
from agent.session.plan import Proofs
from agent.session.proofs import attempt
from tests.conftest import require
from tests.linux.forked import outcome

UNCONFINED = "the launcher's own attempt, made without any confinement"


def test_whoever_is_not_confined_reaches_every_canary() -> None:
    with Canaries() as canaries:
        assert {kind for kind, _, _ in canaries.targets} == {"tcp", "udp"}
        assert canaries.reached() == []
        attempt(Proofs(dial=canaries.targets, token=canaries.token))
        said = canaries.reached()
        assert len(said) == len(canaries.targets), UNCONFINED
        for (_, address, _), sentence in zip(canaries.targets, said, strict=True):
            assert address in sentence


def test_in_a_network_namespace_of_its_own_it_reaches_none() -> None:
    require(process.Capability.SYS_ADMIN in process.capabilities(), "CAP_SYS_ADMIN")
    with Canaries() as canaries:

        def piece() -> None:
            namespaces.unshare(namespaces.NEWNET)
            namespaces.bring_loopback_up()
            attempt(Proofs(dial=canaries.targets, token=canaries.token))

        assert outcome(piece) == 0
        assert canaries.reached() == []


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_one_arrival_is_enough(kind: str) -> None:
    with Canaries() as canaries:
        target = next(found for found in canaries.targets if found[0] == kind)
        attempt(Proofs(dial=(target,), token=canaries.token))
        (sentence,) = canaries.reached()
        assert ("datagram" in sentence) is (kind == "udp")


def test_a_stray_datagram_is_nobodys_escape() -> None:
    with Canaries() as canaries, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for kind, address, port in canaries.targets:
            if kind == "udp" and ":" not in address:
                stranger.sendto(b"stray", (address, port))
        assert canaries.reached() == []
