"""The world outside of a session, for the attack list: names, servers on the real ports, and a push gateway.

Runs as root beside the agent, in a network namespace or container with nothing but loopback, by the agent's own Python
(`arena_inside.py DIRECTORY`). DIRECTORY holds `names.json` (name -> successive answers of the name server), the
servers' `upstream.pem`, and gets `journal.jsonl` (one line per contact) and `metrics` (the last push).

127.0.0.1 is where everything good lives; whoever reaches 127.0.0.2 or a port of `OTHERS` has escaped.
"""

from __future__ import annotations

import errno
import http.server
import json
import socket
import ssl
import struct
import sys
import threading
from pathlib import Path
from typing import Any

from standins import answer_http2, echo_websocket, serve_cgi, serve_file

GOOD, EVIL, RESOLVER = "127.0.0.1", "127.0.0.2", "127.0.0.53"
FAR_GOOD, FAR_EVIL = "203.0.113.10", "203.0.113.11"
"""The same, where loopback could be given addresses of others (RFC 5737): to a session these are not its own."""
OTHERS = (22, 80, 443, 853, 8443, 9999)
PUSH_PORT = 9091
HTTP2 = ("api.good.test", "web.inspect.test")
A, AAAA = 1, 28


class World:
    """Everything that there is outside; `note` writes the journal."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._journal = (directory / "journal.jsonl").open("a", buffering=1)
        self._lock = threading.Lock()
        self._names: dict[str, list[list[str]]] = json.loads((directory / "names.json").read_text())

    def note(self, server: str, **what: object) -> None:
        with self._lock:
            self._journal.write(json.dumps({"server": server, **what}) + "\n")

    def start(self) -> None:
        for good, evil in ((GOOD, EVIL), (FAR_GOOD, FAR_EVIL)):
            self._serve(good, 443, self._good)
            self._serve(good, 80, self._plain)
            for address, ports in ((evil, OTHERS), (good, (22, 853, 9999))):
                for port in ports:
                    self._serve(address, port, self._escaped)
        self._serve(RESOLVER, 53, self._resolve_stream)
        for address, port in ((EVIL, 53), (EVIL, 443), (RESOLVER, 53)):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((address, port))
            threading.Thread(target=self._datagrams, args=(sock, address == RESOLVER), daemon=True).start()
        pushed = http.server.ThreadingHTTPServer((GOOD, PUSH_PORT), self._handler(Push))
        threading.Thread(target=pushed.serve_forever, daemon=True).start()

    def _handler(self, kind: type[Any]) -> type[Any]:
        return type(kind.__name__, (kind,), {"world": self})

    def _serve(self, address: str, port: int, serve: Any) -> None:
        try:
            listener = socket.create_server((address, port), backlog=256)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL and address in (FAR_GOOD, FAR_EVIL):
                return  # a container has only loopback
            raise

        def accept() -> None:
            while True:
                sock, _ = listener.accept()
                threading.Thread(target=self._guarded, args=(serve, sock, f"{address}:{port}"), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()

    def _guarded(self, serve: Any, sock: socket.socket, place: str) -> None:
        with sock:
            sock.settimeout(20)
            try:
                serve(sock, place)
            except (OSError, ValueError) as error:
                self.note(place, error=f"{type(error).__name__}: {error}")

    def _escaped(self, sock: socket.socket, place: str) -> None:
        self.note("escape", place=place)
        sock.sendall(b"reached " + place.encode())

    def _plain(self, sock: socket.socket, place: str) -> None:
        self.note(place, bytes=len(sock.recv(1, socket.MSG_PEEK)))
        self._handler(Answer)(sock, ("", 0), None)

    def _good(self, sock: socket.socket, place: str) -> None:
        named: list[str | None] = []
        if not sock.recv(1, socket.MSG_PEEK):
            self.note(place, bytes=0)
            return
        context, both = self._context("http/1.1"), self._context("h2", "http/1.1")

        def choose(sock: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            named.append(name)
            sock.context = both if name in HTTP2 else context

        context.sni_callback = choose  # type: ignore[assignment]
        with context.wrap_socket(sock, server_side=True) as tls:
            self.note(place, bytes=1, sni=named[0] if named else None, alpn=tls.selected_alpn_protocol())
            if tls.selected_alpn_protocol() == "h2":
                answer_http2(tls, self)
            else:
                self._handler(Answer)(tls, ("", 0), None)

    def _context(self, *protocols: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.directory / "upstream.pem")
        context.set_alpn_protocols(list(protocols))
        return context

    def _datagrams(self, sock: socket.socket, resolver: bool) -> None:
        while True:
            data, peer = sock.recvfrom(4096)
            if not resolver:
                self.note("escape", place=f"udp {sock.getsockname()}")
            elif (answer := self._resolve(data)) is not None:
                sock.sendto(answer, peer)

    def _resolve_stream(self, sock: socket.socket, _: str) -> None:
        with sock.makefile("rb") as stream:
            while len(head := stream.read(2)) == 2:
                answer = self._resolve(stream.read(int.from_bytes(head))) or b""
                sock.sendall(len(answer).to_bytes(2) + answer)

    def _resolve(self, query: bytes) -> bytes | None:
        """RFC 1035: the header's counts, the question as it came, an address record per answer of its family."""
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]])
            at += 1 + query[at]
        kind = struct.unpack_from(">H", query, at + 1)[0]
        name, question = b".".join(labels).decode("latin-1").lower(), query[12 : at + 5]
        self.note("dns", name=name, kind=kind)
        with self._lock:
            known = self._names.get(name)
            current = known[0] if known else []
            if known and len(known) > 1 and kind == A:
                known.pop(0)
        family = {A: socket.AF_INET, AAAA: socket.AF_INET6}.get(kind)
        wanted = [address for address in current if (":" in address) == (kind == AAAA)] if family else []
        records = b""
        for address in wanted:
            data = socket.inet_pton(family, address)  # type: ignore[arg-type]
            records += struct.pack(">HHHIH", 0xC00C, kind, 1, 60, len(data)) + data
        return (
            query[:2] + struct.pack(">HHHHH", 0x8180 | (0 if known else 3), 1, len(wanted), 0, 0) + question + records
        )


class Answer(http.server.BaseHTTPRequestHandler):
    """Says that it was reached, and by which name; files, git and WebSocket under paths of their own."""

    world: World
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.world.note("request", method=self.command, host=self.headers.get("Host"), path=self.path)
        if self.headers.get("Upgrade", "").lower() == "websocket":
            echo_websocket(self)
        elif self.path.startswith("/git/"):
            serve_cgi(self, self.world.directory)
        elif self.path.startswith("/files/"):
            serve_file(self, self.world.directory)
        else:
            self._say()

    do_POST = do_PUT = do_HEAD = do_OPTIONS = do_TRACE = do_DELETE = do_GET

    def _say(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        sent = self.rfile.read(length)
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                sent += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        away = self.path.endswith("/away")
        body = f"reached {self.headers.get('Host', '')} with {len(sent)}\n".encode()
        self.send_response(302 if away else 200)
        if away:
            self.send_header("Location", "http://169.254.169.254/latest/meta-data/")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Push(http.server.BaseHTTPRequestHandler):
    """A push gateway that keeps the last push."""

    world: World

    def do_PUT(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"]))
        (self.world.directory / "metrics").write_bytes(text)
        self.send_response(202)
        self.end_headers()

    do_POST = do_PUT

    def log_message(self, *_: object) -> None:
        """Quiet."""


if __name__ == "__main__":
    World(Path(sys.argv[1])).start()
    print("serving", flush=True)
    threading.Event().wait(600)
