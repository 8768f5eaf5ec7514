"""What the stand-in web server of `arena_inside.py` speaks besides plain answers: files, git, WebSocket, HTTP/2.

Run by the agent's own Python, whose environment has h2 and wsproto.
"""

from __future__ import annotations

import os
import socket
import subprocess
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Message, Ping, Request

GIT = "/usr/lib/git-core/git-http-backend"


def answer_http2(sock: socket.socket, world: Any) -> None:
    """Every stream gets an answer that says which authority was reached."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    connection.initiate_connection()
    sock.sendall(connection.data_to_send())
    while data := sock.recv(65536):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                head = dict(event.headers)
                world.note(
                    "request", method=head[":method"], host=head.get(":authority"), path=head[":path"], http2=True
                )
                body = f"reached {head.get(':authority')} by h2\n".encode()
                connection.send_headers(event.stream_id, [(":status", "200"), ("content-length", str(len(body)))])
                connection.send_data(event.stream_id, body, end_stream=True)
        sock.sendall(connection.data_to_send())


def echo_websocket(handler: BaseHTTPRequestHandler) -> None:
    """The handshake was read by `handler` already: it is given to wsproto once more, then messages go back."""
    link = WSConnection(ConnectionType.SERVER)
    lines = "".join(f"{name}: {value}\r\n" for name, value in handler.headers.items())
    link.receive_data(f"GET {handler.path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1"))
    while True:
        for event in link.events():
            if isinstance(event, Request):
                handler.wfile.write(link.send(AcceptConnection()))
            elif isinstance(event, Message):
                handler.wfile.write(link.send(Message(data=event.data)))
            elif isinstance(event, Ping):
                handler.wfile.write(link.send(event.response()))
            elif isinstance(event, CloseConnection):
                handler.wfile.write(link.send(event.response()))
                return
        data = handler.connection.recv(65536)
        if not data:
            return
        link.receive_data(data)


def serve_file(handler: BaseHTTPRequestHandler, directory: Path) -> None:
    """A file below `DIRECTORY/files`; a directory is its `index`."""
    path = (directory / handler.path.partition("?")[0].lstrip("/")).resolve()
    path = path / "index" if path.is_dir() else path
    found = path.is_relative_to(directory / "files") and path.is_file()
    body = path.read_bytes() if found else b""
    kinds = {"index": "text/html", ".json": "application/json"}
    handler.send_response(200 if found else 404)
    handler.send_header("Content-Type", kinds.get(path.suffix or path.name, "application/octet-stream"))
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def serve_cgi(handler: BaseHTTPRequestHandler, directory: Path) -> None:
    """git's own smart HTTP server (git-http-backend(1)) over the repositories below `DIRECTORY/git`."""
    path, _, query = handler.path.partition("?")
    environment = {
        "GIT_PROJECT_ROOT": str(directory), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path, "QUERY_STRING": query,
        "REQUEST_METHOD": handler.command, "CONTENT_TYPE": handler.headers.get("Content-Type", ""),
        "GIT_PROTOCOL": handler.headers.get("Git-Protocol", ""), "REMOTE_USER": "tester", "PATH": os.environ["PATH"],
        "HTTP_CONTENT_ENCODING": handler.headers.get("Content-Encoding", ""), "HOME": "/nonexistent",
        "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
    }  # fmt: skip
    sent = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    done = subprocess.run([GIT], input=sent, env=environment, capture_output=True, check=False)
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    fields = [tuple(line.split(": ", 1)) for line in head.decode("latin-1").split("\r\n") if ": " in line]
    status = next((value for name, value in fields if name == "Status"), "200 OK")
    handler.send_response(int(status.split()[0]))
    for name, value in fields:
        if name != "Status":
            handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
