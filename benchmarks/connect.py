"""What a connection costs where the guard makes it: against a plain one to the same listener, interleaved, as a ratio.

Run as root: ``.venv/bin/python -m benchmarks.connect [-n 300] [-r 5]``. One operation is socket, connect and close of a
child of this process: plain; to the egress process's door in the session's stead, preamble included; to a server of the
session's own.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import struct
import threading
import time
from collections.abc import Callable

from tests.enforce.egress.connected import World

PLAIN, FORWARDED, OWN = "plain", "forwarded", "own server"


def connect_repeatedly(address: tuple[str, int], count: int) -> float:
    """Seconds per connection."""
    started = time.perf_counter()
    for _ in range(count):
        with socket.socket() as sock:
            sock.connect(address)
    return (time.perf_counter() - started) / count


def accept_all(listener: socket.socket) -> None:
    """Take and close whatever comes, until the listener is closed."""
    while True:
        try:
            listener.accept()[0].close()
        except TimeoutError:
            continue
        except OSError:
            return


def measured(world: World, act: Callable[[], float], *, supervised: bool) -> float:
    """What `act` returns, run as the session or in a plain child."""
    read_end, write_end = os.pipe()

    def piece() -> None:
        os.write(write_end, struct.pack("=d", act()))

    if supervised:
        world.run(piece)
    else:
        child = os.fork()
        if child == 0:
            try:
                piece()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
    os.close(write_end)
    answer = os.read(read_end, 8)
    os.close(read_end)
    return float(struct.unpack("=d", answer)[0])


def own_server(count: int) -> float:
    """Connections to a listener that this process makes itself."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as server:
        threading.Thread(target=accept_all, args=(server,), daemon=True).start()
        return connect_repeatedly(server.getsockname(), count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--count", type=int, default=300, help="connections per variant and round")
    parser.add_argument("-r", "--rounds", type=int, default=5)
    options = parser.parse_args()
    world, count = World(), options.count
    world.forwarded.listen(4096)  # no queue that fills up: that would be measured
    found: dict[str, list[float]] = {PLAIN: [], FORWARDED: [], OWN: []}
    threading.Thread(target=accept_all, args=(world.forwarded,), daemon=True).start()
    near = ("127.0.0.1", world.forwarded_port)
    for _ in range(options.rounds):
        found[PLAIN].append(measured(world, lambda: connect_repeatedly(near, count), supervised=False))
        found[FORWARDED].append(measured(world, lambda: connect_repeatedly(("192.0.2.1", 443), count), supervised=True))
        found[OWN].append(measured(world, lambda: own_server(count), supervised=True))
    plain = statistics.median(found[PLAIN])
    for name, seconds in found.items():
        middle = statistics.median(seconds)
        print(f"{name:<12}{middle * 1e6:9.0f} us per connection   x{middle / plain:.2f}")
    world.close()


if __name__ == "__main__":
    main()
