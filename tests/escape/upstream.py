"""Stand-in servers for the sessions of this suite: plain HTTP, TLS, and a listener that counts whoever gets through.

Runs in the test's process, and by itself in a container (`upstream.py HTTP_PORT TLS_PORT RAW_PORT CERT ESCAPED`),
with the standard library only. Every answer is `reached NAME`, and who sends a key in `X-Api-Key` gets it back with its
digest; a connection to the raw port is an escape; what is pushed to `/metrics/…` is kept (the last push counts).
"""

from __future__ import annotations

import hashlib
import http.server
import os
import socket
import ssl
import sys
import threading


class Answer(http.server.BaseHTTPRequestHandler):
    """Says that it was reached, and by which name."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = f"reached {self.headers.get('Host', '')}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if key := self.headers.get("X-Api-Key"):
            self.send_header("X-Key", key)
            self.send_header("X-Key-Digest", hashlib.sha256(key.encode()).hexdigest())
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def do_PUT(self) -> None:
        if not self.path.startswith("/metrics/"):
            self.do_GET()
            return
        pushed = self.rfile.read(int(self.headers["Content-Length"]))
        with open(self.server.pushed, "wb") as file:  # type: ignore[attr-defined]
            file.write(pushed)
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Upstream:
    """The three servers. `escapes` counts connections to the raw port."""

    def __init__(
        self,
        certificate: str,
        ports: tuple[int, int, int] = (0, 0, 0),
        escaped: str | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        self._escaped = escaped
        with open(certificate) as file:
            self.certificate_text = file.read().partition("-----END PRIVATE KEY-----")[2]
        self.http = http.server.ThreadingHTTPServer((address, ports[0]), Answer)
        self.pushed = f"{escaped or certificate}.pushed"
        self.http.pushed = self.pushed  # type: ignore[attr-defined]
        self.tls = http.server.ThreadingHTTPServer((address, ports[1]), Answer)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.tls.socket = context.wrap_socket(self.tls.socket, server_side=True)
        self.raw = socket.create_server((address, ports[2]))
        self.escapes = 0
        for serve in (self.http.serve_forever, self.tls.serve_forever, self._count):
            threading.Thread(target=serve, daemon=True).start()

    @property
    def ports(self) -> dict[str, int]:
        return {
            "http": self.http.server_address[1],
            "tls": self.tls.server_address[1],
            "raw": self.raw.getsockname()[1],
        }

    def close(self) -> None:
        self.http.shutdown()
        self.tls.shutdown()
        self.http.server_close()
        self.tls.server_close()
        self.raw.close()

    def _count(self) -> None:
        while True:
            try:
                peer, _ = self.raw.accept()
            except OSError:
                return
            self.escapes += 1
            if self._escaped is not None:
                with open(self._escaped, "a") as file:
                    file.write("x")
            peer.close()


if __name__ == "__main__":
    told, tell = os.pipe()
    if os.fork():  # whoever started it goes on when it serves
        os.close(tell)
        sys.exit(os.read(told, 1) != b"s")
    Upstream(sys.argv[4], (int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])), sys.argv[5])
    os.write(tell, b"s")
    threading.Event().wait(600)
