"""The egress process: ``python -m agent.enforce.egress.main --channel FD``.

It starts with the guard's rights, imports everything, and waits. With `start` it gets the policy, starts the
interception engine where a rule needs one, and becomes its own user for good; with `listen` it gets the listening
sockets and serves them. Until then nothing is accepted, and when the channel ends the process ends at once: there is no
proxy without a guard.

Rules kept here: one table of messages it takes; anything else is a fault of the guard and the end. Rights are dropped
before the first listener is served, and never come back.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import logging
import os
import pickle
import resource
import signal
import socket
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from agent.channel import Channel, ChannelClosed, Message
from agent.enforce.egress.dns import NameServer
from agent.enforce.egress.follow import Follower
from agent.enforce.egress.front import Front
from agent.enforce.egress.garbage import collect_rarely
from agent.enforce.egress.http1 import Forwarder
from agent.enforce.egress.identity import Doorkeeper, needs_engine
from agent.enforce.egress.limits import Limits
from agent.enforce.egress.passage import Ways
from agent.enforce.egress.recorder import ChannelRecorder
from agent.enforce.egress.resolve import Lookup, Resolver, system_lookup
from agent.enforce.egress.secrets import Secrets
from agent.enforce.egress.sightings import Sightings
from agent.enforce.egress.spent import Spent
from agent.enforce.egress.tunnel import Carrier, Traffic
from agent.enforce.egress.wire import Poller
from agent.gate import Gate
from agent.linux.process import drop_capability_bounding_set, set_dumpable, set_no_new_privs, set_pdeathsig
from agent.policy.hosts import normalise_host
from agent.policy.model import Policy
from agent.policy.terms import session_limits
from agent.record.timings import Timings
from agent.session.doors import Door
from agent.values import replace

if TYPE_CHECKING:
    from agent.enforce.egress.handover import Engine

log = logging.getLogger(__name__)

REPORT_SECONDS: Final = 1.0
_FLUSH_SECONDS: Final = 1.0
_SPARE_DESCRIPTORS: Final = 256
_PER_CONNECTION: Final = 4  # two sockets, and a pipe now and then


class Egress:
    """One egress process. `done` ends `serve`; its result is the exit status."""

    def __init__(self, channel: Channel, limits: Limits, lookup: Lookup) -> None:
        self._loop = asyncio.get_running_loop()
        self._channel = channel
        self._limits = replace(limits)
        self._defaults = limits
        self._lookup = lookup
        self._done: asyncio.Future[int] = self._loop.create_future()
        self._recorder = ChannelRecorder(channel, self._fault, remember=True)
        self._sightings = Sightings(self._recorder.mention)
        self._traffic = Traffic()
        self._timings = Timings()
        self._poller = Poller()
        self._policy: Policy | None = None
        self._engine: Engine | None = None
        self._front: Front | None = None
        self._names: NameServer | None = None
        self._carrier: Carrier | None = None
        self._follower: Follower | None = None
        self._spent: Spent | None = None
        self._starting: asyncio.Task[None] | None = None
        self._marks: list[socket.socket] = []
        self._waiting_listeners: list[tuple[Door, socket.socket]] = []

    async def serve(self) -> int:
        """Until `stop` or the end of the channel. Returns the exit status."""
        self._loop.add_reader(self._channel.fileno(), self._readable)
        report = self._loop.call_later(REPORT_SECONDS, self._report)
        status = await self._done
        report.cancel()
        self._loop.remove_reader(self._channel.fileno())
        if status == 0:
            await self._wind_down()
        return status

    def leave(self, descriptor: int) -> None:
        """Write there what the guard may not have recorded, for the next one."""
        words = memoryview(self._recorder.last_words())
        while words:
            words = words[os.write(descriptor, words) :]

    async def _wind_down(self) -> None:
        if self._front is not None:
            self._front.stop()
        if self._names is not None:
            self._names.stop()
        self._poller.stop()
        if self._engine is not None:
            await self._engine.stop()
        self._send_stats()
        await self._recorder.drain(_FLUSH_SECONDS)

    def _readable(self) -> None:
        try:
            for message, fds in self._channel.feed():
                self._dispatch(message, fds)
        except ChannelClosed as error:
            if self._starting is None:  # the guard gave the run up, and has said why
                self._end(1)
            else:
                self._fault(f"channel: {error}")
        except Exception as error:  # a change that was made by half holds for nobody: the end of every connection
            log.exception("a message of the guard could not be followed")
            self._fault(f"channel: {type(error).__name__}: {error}")

    def _dispatch(self, message: Message, fds: list[int]) -> None:
        match message["type"]:
            case "accepted":
                self._recorder.settle(int(message["n"]), None)
            case "refused":
                self._recorder.settle(int(message["n"]), str(message["error"]))
            case "start" if self._starting is None:
                self._starting = self._loop.create_task(self._start(message))
                self._starting.add_done_callback(self._started)
            case "listen" if message["doors"] and len(message["doors"]) == len(fds):
                doors = [Door(name) for name in message["doors"]]
                self._waiting_listeners += [
                    (door, socket.socket(fileno=fd)) for door, fd in zip(doors, fds, strict=True)
                ]
                self._listen()
            case "taken":
                self._recorder.taken(int(message["through"]))
            case "seen":
                self._sightings.seen(int(message["through"]))
            case "policy":
                self._follow(message)
            case "stop":
                self._end(0)
            case unknown:
                raise ValueError(f"message {unknown!r} is not allowed here")

    async def _start(self, message: Message) -> None:
        policy = _policy_in(message)
        actor, uid, gid = str(message["actor"]), message["uid"], message["gid"]
        secrets = Secrets.parse(message["secrets"])
        token = _token_in(message)
        if needs_engine(policy) or message["ca"] is not None:  # a later policy may need it again
            self._engine = self._make_engine(policy, actor, message, secrets)
        drop_rights(uid, gid)
        if self._engine is not None:
            await self._engine.start()
        self._policy = policy
        self._front = self._make_front(policy, actor, secrets, token, message["accounts"])
        self._recorder.send({"type": "ca", "ca": None if self._engine is None else self._engine.ca})
        self._listen()

    def _follow(self, message: Message) -> None:
        """Another policy is in force from here on, in one turn of the loop. Raises TypeError, ValueError."""
        policy = _policy_in(message)
        if self._carrier is None or self._follower is None:
            raise ValueError("a policy to follow before the first one was served")
        if self._engine is None and needs_engine(policy):
            raise ValueError("the policy needs an engine, and none was started")
        self._policy = policy
        self._limits.follow(session_limits(policy), self._defaults)
        self._carrier.idle = self._limits.idle
        if self._engine is not None:
            self._engine.follow(policy)
        cut = self._follower.redecide()
        self._recorder.send({"type": "policy", "digest": policy.digest, "cut": cut})

    def _in_force(self) -> Policy:
        if self._policy is None:
            raise LookupError("no policy is in force")
        return self._policy

    def _make_engine(self, policy: Policy, actor: str, message: Message, secrets: Secrets) -> Engine:
        """Spawned before the rights are dropped: the worker drops its own, when it has imported mitmproxy."""
        from agent.enforce.egress.handover import Engine

        engine = Engine(
            policy,
            actor,
            self._recorder,
            ca_file=message["ca_file"],
            uid=message["uid"],
            gid=message["gid"],
            on_death=self._fault,
            on_stats=self._engine_traffic,
            secrets=secrets,
            timings=self._timings,
            ca=message["ca"],
            renew=message["renew"],
        )
        engine.spawn()
        return engine

    def _make_front(
        self, policy: Policy, actor: str, secrets: Secrets, token: bytes, spent: Mapping[str, list[int]]
    ) -> Front:
        self._limits.follow(session_limits(policy), self._defaults)
        gate = Gate(self._in_force, self._recorder, actor, self._timings.observe)
        resolver = Resolver(self._lookup)
        door = Doorkeeper(self._in_force, gate, self._recorder, resolver, actor, secrets=secrets)
        self._spent = Spent(door.quota, spent)
        self._names = NameServer(self._poller, self._in_force, gate, resolver, secrets, sightings=self._sightings)
        carrier = self._carrier = Carrier(self._poller, self._traffic, idle=self._limits.idle)
        self._follower = Follower(self._in_force, door.quota, self._recorder, actor)
        forwarder = Forwarder(self._poller, door, self._traffic, self._limits)
        ways = Ways(carrier, forwarder, self._engine)
        return Front(
            self._poller,
            door,
            ways,
            self._limits,
            names_of=resolver.names_of,
            dns=self._names,
            token=token,
            sightings=self._sightings,
        )

    def _started(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the egress process cannot start", exc_info=error)
            self._fault(f"start: {error}")

    def _listen(self) -> None:
        if self._front is None or self._names is None or not self._waiting_listeners:
            return
        for door, listener in self._waiting_listeners:
            match door:
                case Door.DNS_UDP:
                    self._names.listen_udp(listener)
                case Door.DNS_TCP:
                    self._names.listen_tcp(listener)
                case Door.MARK:
                    self._marks.append(listener)
                case _:
                    self._front.listen(listener, door)
        self._waiting_listeners.clear()
        self._recorder.send({"type": "ready"})

    def _engine_traffic(self, up: int, down: int) -> None:
        self._traffic.up += up
        self._traffic.down += down

    def _report(self) -> None:
        self._send_stats()
        if not self._done.done():
            self._loop.call_later(REPORT_SECONDS, self._report)

    def _send_stats(self) -> None:
        if self._engine is not None:
            self._engine.tell_spent()
        up, down, connections = self._traffic.take()
        counts, seconds = self._timings.take()
        accounts = {} if self._spent is None else self._spent.take()
        if up or down or connections or accounts or any(counts):
            numbers = {"up": up, "down": down, "connections": connections, "accounts": accounts}
            self._recorder.send({"type": "stats", **numbers, "decisions": counts, "seconds": seconds})

    def _fault(self, reason: str) -> None:
        log.error("the egress process ends: %s", reason)
        self._end(1)

    def _end(self, status: int) -> None:
        if not self._done.done():
            self._done.set_result(status)


def _policy_in(message: Message) -> Policy:
    policy = pickle.loads(base64.b64decode(message["policy"]))  # noqa: S301 (from the guard, which has more rights)
    if not isinstance(policy, Policy):
        raise TypeError("the guard sent no policy")
    return policy


def _token_in(message: Message) -> bytes:
    """What shows that a forwarded connection is the guard's own. Raises KeyError, TypeError, ValueError."""
    token = bytes.fromhex(message["token"])
    if not token:
        raise ValueError("the guard sent no token")
    return token


def drop_rights(uid: int | None, gid: int | None) -> None:
    """Become `uid`:`gid` for good (None: stay), without ways back. Raises OSError where the kernel refuses."""
    set_no_new_privs()
    if gid is not None:
        os.setgroups([])
        if os.geteuid() == 0:
            drop_capability_bounding_set()
        os.setresgid(gid, gid, gid)
    if uid is not None:
        os.setresuid(uid, uid, uid)
        if uid and os.getresuid() != (uid, uid, uid):
            raise PermissionError(f"still {os.getresuid()}, not {uid}")
    set_dumpable(False)
    set_pdeathsig(signal.SIGKILL)


def warm_up() -> None:
    """Load what is loaded at first use, while everything can still be read."""
    normalise_host("bücher.example")
    system_lookup("127.0.0.1")


def main(argv: list[str] | None = None, *, limits: Limits | None = None, lookup: Lookup = system_lookup) -> int:
    """Serve until told to stop. `limits` and `lookup` are for tests that make their own names."""
    set_dumpable(False)  # the change of user sets it back (prctl(2)), and is followed by another
    parser = argparse.ArgumentParser(prog="agent.enforce.egress.main")
    parser.add_argument("--channel", type=int, required=True, help="descriptor of the socket to the guard")
    parser.add_argument("--last", type=int, help="descriptor for what the guard did not live to take")
    given = parser.parse_args(argv)
    descriptor = given.channel
    logging.basicConfig(level=logging.WARNING, format="egress: %(levelname)s %(name)s: %(message)s")
    os.environ["LOCALDOMAIN"] = ""  # no search list: the decided name is looked up and no other (resolv.conf(5))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the session's terminal is the session's
    limits = _within_descriptors(limits or Limits())
    warm_up()
    collect_rarely()
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)
    if given.last is not None:
        os.set_inheritable(given.last, False)
    sock.setblocking(False)

    async def run() -> int:
        egress = Egress(Channel(sock), limits, lookup)
        status = await egress.serve()
        if status and given.last is not None:
            egress.leave(given.last)
        return status

    return asyncio.run(run())


def _within_descriptors(limits: Limits) -> Limits:
    """As many connections as there are descriptors for; the soft limit is raised to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 1 << 20 if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 1 << 20), hard))
    return replace(limits, connections=max(1, min(limits.connections, (most - _SPARE_DESCRIPTORS) // _PER_CONNECTION)))


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # at once: a lookup that hangs in a thread must not hold the process
