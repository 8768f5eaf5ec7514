"""An upstream for the tests of secrets: keeps every byte it is sent, and answers what the test wants."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable

SECONDS = 60.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class KeepingUpstream:
    """HTTP/1.1 over TLS, one thread per connection. `received`: the bytes of each connection in order. `answer` makes
    the pieces of an answer from one whole request; each piece is sent by itself, and an empty
    one ends the connection."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.received: list[bytearray] = []
        self.answer: Callable[[bytes], list[bytes]] = lambda _: [OK]
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def all(self) -> bytes:
        """Everything that ever arrived."""
        return b"".join(bytes(each) for each in self.received)

    def reset(self) -> None:
        self.received.clear()
        self.answer = lambda _: [OK]

    def close(self) -> None:
        self.listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), self._context.wrap_socket(sock, server_side=True) as tls:
            tls.settimeout(SECONDS)
            kept, start = bytearray(), 0
            self.received.append(kept)
            while data := tls.recv(65536):
                kept += data
                while (end := _end_of_request(kept, start)) is not None:
                    for piece in self.answer(bytes(kept[start:end])):
                        if not piece:
                            return
                        tls.sendall(piece)
                    start = end


def _end_of_request(data: bytearray, start: int) -> int | None:
    head = data.find(b"\r\n\r\n", start)
    if head < 0:
        return None
    lines = bytes(data[start:head]).lower().split(b"\r\n")
    if b"transfer-encoding: chunked" in lines:
        end = data.find(b"0\r\n\r\n", head + 4)
        return None if end < 0 else end + 5
    length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), 0)
    return head + 4 + length if len(data) >= head + 4 + length else None
