"""The guard's part in a session's connections where there is no network namespace: what the connector is made of.

The listener for forwarded connections is opened here and handed to the egress process; the guard keeps only its port.
Imported where there is one to be made: it takes time.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

from agent.daemon.base.spec import RunSpec
from agent.daemon.launch.planning import Ground
from agent.enforce.egress.connect import Connector
from agent.enforce.egress.dialling import Doors
from agent.enforce.egress.on_behalf import OnBehalf
from agent.gate import Gate
from agent.policy.grants import path_grants
from agent.session.doors import Door

BACKLOG = 1024

type Serve = Callable[[list[Door], list[int]], Awaitable[None]]


def listen_on_loopback(listener: socket.socket) -> int:
    """Serve a free port of the agent's own loopback; returns it."""
    listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    port: int = listener.getsockname()[1]
    return port


async def open_doors(serve: Serve, *, forwarded: bool) -> tuple[int, int | None]:
    """Open the doors of a session without a jail; the ports of the proxy and of forwarded connections."""
    with socket.socket() as proxy, socket.socket() as captured:
        doors, listeners = [Door.PROXY], [proxy]
        ports = (listen_on_loopback(proxy), listen_on_loopback(captured) if forwarded else None)
        if forwarded:
            doors.append(Door.FORWARDED)
            listeners.append(captured)
        await serve(doors, [listener.fileno() for listener in listeners])
    return ports


def make_connector(spec: RunSpec, ground: Ground, gate: Gate, ports: tuple[int, int], token: bytes) -> Connector:
    """For a session that stands on `ground`. `ports`: of the proxy and of forwarded connections. UNIX sockets: as the
    policy grants paths, whatever is only observed."""
    separate = spec.egress_user is not None
    uid, gid = (spec.session_user.uid, spec.session_user.gid) if separate else (None, None)
    grants = path_grants(ground.policy, home=ground.places.home, tmpdir=ground.places.tmpdir)
    behalf = OnBehalf(uid, gid, writable=grants.write, reachable=(ground.places.hook_socket,))
    return Connector(gate.deny, Doors(*ports, token), behalf, session_uid=uid, session_gid=gid)
