"""The guard's way to the egress process, which may die and be replaced while the session goes on.

Rules kept here: before the session starts (`endure`) the end of the egress process is a fault, which ends the run; from
there on it is told, nothing is allowed until another one serves, and that one gets what the first was given: the policy
in force, the secrets, the token, the same interception CA (programs have read its certificate at their start, so a new
one would be no use to them) and the accounts, so that no limit starts anew. The listening sockets it gets are those of
before, which the keeper holds: nobody can take their place. After a restore (`renew`) the next one gets another token
and makes another CA, whose certificate is told before anything is served. A process that does what it must not
(`agent.daemon.egress.peer`) is not replaced: that is a fault, and ends the session.

The values of secrets and the CA's key go to it in the start message, are in this process's memory meanwhile, and are
nowhere else. Lost with a process are the counts of its last second, and its last refusals where it had not sent them.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import pickle
from collections.abc import Callable, Mapping
from secrets import token_bytes
from typing import Final

from agent.channel import Channel, Message
from agent.daemon.base.spec import User
from agent.daemon.egress.attribution import Attribution
from agent.daemon.egress.peer import Counted, EgressFault, EgressPeer
from agent.enforce.egress.secrets import Secrets
from agent.policy.model import Policy
from agent.record.ledger import Ledger
from agent.record.metrics import Metrics
from agent.session.doors import Door
from agent.session.preamble import TOKEN_BYTES
from agent.values import dataclass

__all__ = ["EgressFault", "EgressLink"]
log = logging.getLogger(__name__)

_MINUTE: Final = 61.0

type Hold = Callable[[list[str], list[int]], None]


@dataclass(frozen=True, slots=True)
class LinkState:
    """What makes one egress process as good as another: the token, the interception CA (see `EgressPeer`), what else it
    is told at its start, and whether the next one is to make another CA."""

    token: bytes
    ca: Mapping[str, str] | None
    equipment: Message
    renewing: bool = False


class EgressLink:
    """Starts the egress process's work, takes its events and numbers. Must be made inside the running loop.

    `on_fault` is called once when it fails for good. After `endure`, `on_lost` when a process is gone and `on_back`
    when another serves in its place. `hold` is given copies of the listening sockets (and what each is for) that must
    outlive it.
    """

    def __init__(
        self,
        channel: Channel,
        ledger: Ledger,
        metrics: Metrics,
        actor: str,
        *,
        on_fault: Callable[[str], None],
        attribution: Attribution,
        on_lost: Callable[[str], None] = lambda reason: None,
        on_back: Callable[[], None] = lambda: None,
        hold: Hold = lambda doors, listeners: None,
    ) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._actor = actor
        self._on_fault = on_fault
        self._attribution = attribution
        self._on_lost = on_lost
        self._on_back = on_back
        self._hold = hold
        self._secrets = Secrets()
        self._policy: Policy | None = None
        self._equipment: Message = {}
        self._ca: Mapping[str, str] | None = None
        self._counted = Counted()
        self._enduring = self._stopping = self._renewing = False
        self._replacing: asyncio.Task[None] | None = None
        self.token = token_bytes(TOKEN_BYTES)
        """What makes the preamble of a forwarded connection true (agent.session.preamble)."""
        self.generation = 0
        """How many processes have been replaced."""
        self.on_follow: Callable[[], None] = lambda: None
        """Called where another policy is in force, or another CA, before anybody else is told."""
        self.on_renewed: Callable[[str], None] = lambda certificate: None
        """Called with the certificate (PEM) of another interception CA, before it is served. May raise OSError: then
        nothing is served."""
        self._peer = self._meet(channel, 0)

    @property
    def bytes_up(self) -> int:
        """Bytes that went out, so far."""
        return self._counted.up

    @property
    def bytes_down(self) -> int:
        """Bytes that came in, so far."""
        return self._counted.down

    async def start(self, policy: Policy, user: User | None, ca_file: str | None, secrets: Secrets) -> str | None:
        """Hand over the policy; returns the interception CA's certificate (PEM), None where none is needed."""
        self._secrets = self._peer.secrets = secrets
        self._equipment = {
            "actor": self._actor,
            "uid": None if user is None else user.uid,
            "gid": None if user is None else user.gid,
            "ca_file": ca_file,
            "secrets": secrets.dump(),
            "token": self.token.hex(),
        }
        self._ca = await self._equip(self._peer, policy)
        return None if self._ca is None else self._ca["certificate"]

    def resume(self, left: LinkState, counted: Counted, policy: Policy, secrets: Secrets) -> None:
        """In the place of another guard's link, which left this: `serve` gives it to the process that is there."""
        self.token, self._ca, self._policy = left.token, left.ca, policy
        self._renewing = left.renewing
        self._equipment = dict(left.equipment)
        self._secrets = self._peer.secrets = secrets
        self._counted.up, self._counted.down = counted.up, counted.down
        self._counted.accounts.update(counted.accounts)
        self._enduring = True

    @property
    def state(self) -> LinkState:
        """For the link of another guard."""
        return LinkState(self.token, self._ca, self._equipment, self._renewing)

    @property
    def counted(self) -> Counted:
        """The same, once a second."""
        return self._counted

    def serve(self, doors: list[str], listeners: list[int]) -> None:
        """After `resume`: have the process that is there serve these. Takes over the listeners."""
        work = self._take_over(self._peer, doors, listeners)
        self._replacing = asyncio.get_running_loop().create_task(work)

    def renew(self) -> None:
        """The next egress process has another token, and another interception CA. The one that serves is to end."""
        self.token = token_bytes(TOKEN_BYTES)
        self._equipment = {**self._equipment, "token": self.token.hex()}
        self._renewing = True
        self.on_follow()

    def endure(self) -> None:
        """The session starts: from here on the end of an egress process is survived."""
        self._enduring = True

    def follow(self, policy: Policy) -> asyncio.Future[int] | None:
        """Another policy is in force. The result: how many connections were cut, once none is allowed by the last one;
        None while no process serves. Raises EgressFault where it cannot be told to the process that serves."""
        self._policy = policy
        self.on_follow()
        return None if self._absent else self._peer.follow(_packed(policy))

    async def listen(self, doors: list[Door], listeners: list[int]) -> None:
        """Hand over listening sockets, each with what it is for, and wait until they are served."""
        names = [str(door) for door in doors]
        self._hold(names, listeners)
        self._peer.send({"type": "listen", "doors": names}, listeners)
        await self._peer.ready

    def replace(self, channel: Channel, doors: list[str], listeners: list[int]) -> None:
        """Another process has been started: give it all that the last one had. Takes over the listeners."""
        if self._replacing is not None:
            self._replacing.cancel()
        self._peer.drain()
        self.generation += 1
        self._peer = self._meet(channel, self._peer.numbered)
        self.serve(doors, listeners)

    async def stop(self, seconds: float) -> None:
        """Ask for the last numbers and the end."""
        self._stopping = True
        self._peer.expect_end()
        if self._replacing is not None:
            self._replacing.cancel()
        try:
            self._peer.send({"type": "stop"})
            await asyncio.wait_for(asyncio.shield(self._peer.gone), seconds)
        except EgressFault:
            return
        except TimeoutError:
            log.warning("the egress process did not stop in time")

    @property
    def _absent(self) -> bool:
        """True while none serves: what it must know it is told at its start."""
        return self._enduring and (self._peer.gone.done() or self._replacing is not None)

    def _meet(self, channel: Channel, base: int) -> EgressPeer:
        return EgressPeer(
            channel,
            self._ledger,
            self._metrics,
            self._attribution,
            self._counted,
            actor=self._actor,
            secrets=self._secrets,
            base=base,
            on_fault=self._on_fault,
            on_gone=self._gone,
        )

    def _gone(self, reason: str) -> None:
        if self._stopping:
            return
        if self._enduring:
            self._on_lost(f"the egress process is gone: {reason}")
        else:
            self._on_fault(reason)

    async def _equip(self, peer: EgressPeer, policy: Policy) -> Mapping[str, str] | None:
        self._policy = policy
        # pickle goes one way only: from the guard (root) to the process with fewer rights
        message = {"type": "start", "policy": _packed(policy), **self._equipment, "ca": self._ca}
        peer.send({**message, "renew": self._renewing, "accounts": self._accounts()})
        return await peer.certified

    async def _take_over(self, peer: EgressPeer, doors: list[str], listeners: list[int]) -> None:
        told = self._policy
        try:
            renewing, token = self._renewing, self.token
            if told is None or not self._as_wanted(await self._equip(peer, told), token if renewing else None):
                self._on_fault("an egress process that was started again is not as the first one")
                return
            told = self._update(peer, told)  # before it serves anything
            peer.send({"type": "listen", "doors": doors}, listeners)
            await peer.ready
            self._update(peer, told)
        except EgressFault as error:
            log.warning("an egress process did not come up: %s", error)
            return  # its end has been told; the keeper starts another one, or ends the session
        except OSError as error:
            self._on_fault(f"the session cannot be told of another interception CA: {error}")
            return
        finally:
            for listener in listeners:
                os.close(listener)
            if self._peer is peer:
                self._replacing = None
        self._on_back()

    def _as_wanted(self, ca: Mapping[str, str] | None, renewed: bytes | None) -> bool:
        """False where its CA is not the one that it was given or, where it was to make another one, is. `renewed`: the
        token that it was given then. Raises OSError."""
        if renewed is None:
            return ca == self._ca
        if ca is not None and self._ca is not None:
            if ca["key"] == self._ca["key"]:
                return False
            self.on_renewed(ca["certificate"])
        elif ca is not self._ca:
            return False
        self._ca = ca
        self._renewing = renewed is not self.token  # asked for again meanwhile
        self.on_follow()
        return True

    def _update(self, peer: EgressPeer, told: Policy) -> Policy:
        """The policy in force, of which it is told where that is not what it knows. Raises EgressFault."""
        policy = self._policy or told
        if policy is not told:
            peer.follow(_packed(policy))
        return policy

    def _accounts(self) -> dict[str, list[int]]:
        """As a new process must go on counting; what began more than a minute ago has no part in any rate."""
        now = asyncio.get_running_loop().time()
        return {
            name: [up, down, recent if now - said < _MINUTE else 0]
            for name, (up, down, recent, said) in self._counted.accounts.items()
        }


def _packed(policy: Policy) -> str:
    return base64.b64encode(pickle.dumps(policy)).decode()
