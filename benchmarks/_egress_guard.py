"""The real guard's side of the egress channel for the benchmark: audit log, metrics, attribution, in a process of its
own: ``python -m benchmarks._egress_guard CHANNEL LISTENER POLICY LOG [CA]``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from agent.channel import Channel, pair
from agent.daemon.egress.attribution import Attribution
from agent.daemon.egress.link import EgressLink
from agent.enforce.egress.secrets import Secrets
from agent.policy.model import Policy
from agent.record.ledger import Ledger
from agent.record.metrics import Metrics
from agent.session.doors import Door
from benchmarks._egress_load import SESSION


@contextlib.contextmanager
def guarded(allowed: Policy, where: Path, ca: Path | None) -> Iterator[tuple[int, int, int]]:
    """An egress process under a real guard: the proxy's port, the egress process, the guard."""
    ours, theirs = pair()
    blob = where / "policy.pickle"
    blob.write_bytes(pickle.dumps(allowed))
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    egress = subprocess.Popen(
        [sys.executable, "-m", "agent.enforce.egress.main", "--channel", str(theirs.fileno())],
        pass_fds=(theirs.fileno(),),
    )
    arguments = [str(ours.fileno()), str(listener.fileno()), str(blob), str(where / "log"), str(ca or "")]
    guard = subprocess.Popen(
        [sys.executable, "-m", "benchmarks._egress_guard", *arguments],
        pass_fds=(ours.fileno(), listener.fileno()),
        stdout=subprocess.PIPE,
    )
    ours.close()
    theirs.close()
    port = int(listener.getsockname()[1])
    listener.close()
    try:
        assert guard.stdout is not None
        guard.stdout.readline()
        yield port, egress.pid, guard.pid
    finally:
        guard.terminate()
        guard.wait()
        egress.wait()


async def serve(channel: int, listener: int, policy: Policy, log: Path, ca: str | None) -> None:
    metrics = Metrics(version="benchmark")
    ledger = Ledger(log, session_id="b", boot="b", metrics=metrics)
    ledger.start()
    ended = asyncio.get_running_loop().create_future()
    session = SESSION if os.geteuid() == 0 else None
    attribution = Attribution(os.getpid, session, session, {})
    sock = socket.socket(fileno=channel)
    link = EgressLink(
        Channel(sock), ledger, metrics, "session:b", on_fault=ended.set_exception, attribution=attribution
    )
    await link.start(policy, None, ca, Secrets())
    await link.listen([Door.PROXY], [listener])
    print("ready", flush=True)
    await ended


def main() -> None:
    channel, listener, policy, log, ca = sys.argv[1:]
    given = pickle.loads(Path(policy).read_bytes())
    asyncio.run(serve(int(channel), int(listener), given, Path(log), ca or None))


if __name__ == "__main__":
    main()
