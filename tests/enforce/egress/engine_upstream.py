"""Real upstreams on loopback for the engine's tests: a test CA, an HTTP/1 server and an HTTP/2 server over TLS."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Message, Request

DAY = timedelta(days=1)
CHUNK = bytes(range(256)) * 256


class Authority:
    """A CA of the test's own, with its certificate in `file`."""

    def __init__(self, directory: Path, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.directory = directory
        self.certificate = self._build(self.name, self.key, x509.BasicConstraints(ca=True, path_length=None), None, 1)
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def server_context(self, *hosts: str, days: int = 1, http2: bool = False) -> ssl.SSLContext:
        """A server's context with a leaf for `hosts`, valid until `days` from now (negative: expired)."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [
            x509.IPAddress(ip_address(host)) if host[0].isdigit() else x509.DNSName(host) for host in hosts
        ]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
        leaf = self._build(
            subject, key, x509.BasicConstraints(ca=False, path_length=None), x509.SubjectAlternativeName(names), days
        )
        file = self.directory / f"{hosts[0]}-{leaf.serial_number}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + leaf.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
        return context

    def _build(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        constraints: x509.BasicConstraints,
        names: x509.SubjectAlternativeName | None,
        days: int,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 30 * DAY)
            .not_valid_after(now + days * DAY)
            .add_extension(constraints, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key, hashes.SHA256())


class Upstream:
    """A server on 127.0.0.1; `requests` are the (method, target, host) it was sent, `connections` how many came."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.context = context
        self.requests: list[tuple[str, str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.sni: list[str | None] = []
        if context is not None:
            context.sni_callback = lambda _sock, name, _context: self.sni.append(name)

    def reset(self) -> None:
        self.requests.clear()
        self.headers.clear()
        self.sni.clear()
        self.connections = 0


class Http1Upstream(Upstream):
    """HTTP/1.1: echoes what it got; `/big/N` sends N blocks of 64 KiB; `/ws` echoes WebSocket messages
    (`/ws/told` the key in the head of its answer, too; `/ws/extended` names an extension that nobody offered)."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        super().__init__(context)
        upstream = self

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def finish_request(self, request: Any, client_address: Any) -> None:
                upstream.connections += 1
                if upstream.context is not None:
                    try:
                        request = upstream.context.wrap_socket(request, server_side=True)
                    except OSError:
                        return
                Handler(request, client_address, self)

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A peer that goes away is part of the tests."""

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30
            disable_nagle_algorithm = True

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                upstream.requests.append((self.command, self.path, self.headers.get("Host", "")))
                upstream.headers.append({key.lower(): value for key, value in self.headers.items()})
                answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def answer(handler: BaseHTTPRequestHandler) -> None:
    if handler.path.startswith("/ws"):
        echo_websocket(handler)
    elif handler.path.startswith("/h2c") and "Upgrade" in handler.headers:
        handler.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")
        handler.close_connection = True
    elif handler.path.startswith("/big/"):
        blocks = int(handler.path.removeprefix("/big/"))
        handler.send_response(200)
        handler.send_header("Content-Length", str(blocks * len(CHUNK)))
        handler.end_headers()
        for _ in range(blocks):
            handler.wfile.write(CHUNK)
    elif handler.path.startswith("/moved"):
        handler.send_response(302)
        handler.send_header("Location", "https://elsewhere.test/")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
    elif handler.path.startswith("/events"):
        stream_events(handler)
    else:
        count, digest = read_body(handler)
        body = f"{handler.command} {handler.path} {count} {digest}".encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)


def stream_events(handler: BaseHTTPRequestHandler) -> None:
    """One chunk, and the next only when the test says so through `release`."""
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"d\r\ndata: first\n\n\r\n")
    handler.wfile.flush()
    RELEASE.wait(60)
    handler.wfile.write(b"c\r\ndata: last\n\n\r\n0\r\n\r\n")


RELEASE = threading.Event()


def read_body(handler: BaseHTTPRequestHandler) -> tuple[int, str]:
    digest, count = hashlib.sha256(), 0
    if handler.headers.get("Transfer-Encoding", "").lower() == "chunked":
        while size := int(handler.rfile.readline().split(b";")[0], 16):
            digest.update(handler.rfile.read(size))
            count += size
            handler.rfile.readline()
        handler.rfile.readline()
        return count, digest.hexdigest()
    left = int(handler.headers.get("Content-Length", "0"))
    while left:
        block = handler.rfile.read(min(left, 65536))
        if not block:
            break
        digest.update(block)
        count += len(block)
        left -= len(block)
    return count, digest.hexdigest()


def echo_websocket(handler: BaseHTTPRequestHandler) -> None:
    peer = WSConnection(ConnectionType.SERVER)
    head = f"{handler.command} {handler.path} HTTP/1.1\r\n" + "".join(
        f"{key}: {value}\r\n" for key, value in handler.headers.items()
    )
    peer.receive_data(head.encode() + b"\r\n")
    handler.close_connection = True
    sock = handler.connection
    while True:
        for event in peer.events():
            if isinstance(event, Request):
                said = handler.headers.get("X-Api-Key", "") if handler.path == "/ws/told" else ""
                fields = [(b"X-Echo", said.encode())] if said else []
                if handler.path == "/ws/extended":
                    fields.append((b"Sec-WebSocket-Extensions", b"permessage-deflate"))
                sock.sendall(peer.send(AcceptConnection(extra_headers=fields)))
            elif isinstance(event, Message):
                sock.sendall(peer.send(type(event)(data=event.data)))
            elif isinstance(event, CloseConnection):
                sock.sendall(peer.send(event.response()))
                return
        data = sock.recv(65536)
        if not data:
            return
        peer.receive_data(data)


class Http2Upstream(Upstream):
    """HTTP/2 only: answers every stream with its method, path and how many bytes came."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._guarded, args=(sock,), daemon=True).start()

    def _guarded(self, sock: socket.socket) -> None:
        assert self.context is not None
        try:
            with self.context.wrap_socket(sock, server_side=True) as tls:
                serve_http2(tls, self._answer)
        except OSError:
            sock.close()

    def _answer(self, headers: dict[str, str], body: bytes) -> bytes:
        self.requests.append((headers[":method"], headers[":path"], headers[":authority"]))
        self.headers.append(headers)
        return f"{headers[':method']} {headers[':path']} {len(body)}".encode()


def serve_http2(sock: ssl.SSLSocket, answer_stream: Callable[[dict[str, str], bytes], bytes]) -> None:
    peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    peer.initiate_connection()
    sock.sendall(peer.data_to_send())
    heads: dict[int, dict[str, str]] = {}
    bodies: dict[int, bytes] = {}
    while data := sock.recv(65536):
        for event in peer.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                heads[event.stream_id] = dict(event.headers)  # type: ignore[arg-type]
                bodies[event.stream_id] = b""
            elif isinstance(event, h2.events.TrailersReceived):  # as a server that takes them for header fields
                heads[event.stream_id].update(dict(event.headers))  # type: ignore[arg-type]
            elif isinstance(event, h2.events.DataReceived):
                bodies[event.stream_id] += event.data
                peer.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                body = answer_stream(heads.pop(event.stream_id), bodies.pop(event.stream_id))
                peer.send_headers(event.stream_id, [(":status", "200"), ("content-length", str(len(body)))])
                peer.send_data(event.stream_id, body, end_stream=True)
        sock.sendall(peer.data_to_send())
