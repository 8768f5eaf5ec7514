"""`websocket.py HOST PATH TEXT…`: a WebSocket (RFC 6455) through the proxy; every text must come back."""

import base64
import os
import socket
import ssl
import struct
import sys
from urllib.parse import urlsplit


def read_head(link):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = link.recv(1)
        if not byte:
            break
        head += byte
    return head.decode()


def exactly(link, count):
    data = b""
    while len(data) < count:
        data += link.recv(count - len(data))
    return data


def main(host, path, *texts):
    place = urlsplit(os.environ["HTTPS_PROXY"])
    link = socket.create_connection((place.hostname, place.port), 20)
    link.sendall(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
    head = read_head(link)
    if " 200 " not in head:
        sys.exit(head)
    link = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"]).wrap_socket(link, server_hostname=host)
    key = base64.b64encode(os.urandom(16)).decode()
    link.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = read_head(link)
    if " 101 " not in head:
        sys.exit(head)
    for text in texts:
        data, mask = text.encode(), os.urandom(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
        link.sendall(struct.pack(">BB", 0x81, 0x80 | len(data)) + mask + masked)
        _, size = exactly(link, 2)
        print(exactly(link, size).decode())


main(*sys.argv[1:])
