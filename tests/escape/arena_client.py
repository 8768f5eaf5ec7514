"""The attacker's side of the attack list: runs inside a session, with the standard library only.

Each argument is one case as JSON; the answers come as one JSON list, in the same order. A case's `way` is the table
`WAYS`; `data` and what was received are latin-1 text. No case takes longer than `SECONDS`.
"""

import json
import os
import socket
import ssl
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

SECONDS = 12
PROXY = urlsplit(os.environ["HTTPS_PROXY"])


def proxy():
    link = socket.create_connection((PROXY.hostname, PROXY.port), SECONDS)
    link.settimeout(SECONDS)
    return link


def filled(case, text):
    return text.replace("{proxy}", str(PROXY.port)).encode("latin-1")


def send(link, case):
    data = filled(case, case.get("data", ""))
    size = case.get("pieces") or len(data) or 1
    for at in range(0, len(data), size):
        link.sendall(data[at : at + size])
        if case.get("pieces"):
            time.sleep(0.005)


def read_all(link):
    received, end = b"", time.monotonic() + SECONDS
    try:
        while time.monotonic() < end and (part := link.recv(65536)):
            received += part
    except TimeoutError:  # before ssl.SSLError, which it may be as well
        if not received:
            raise
    except (ConnectionError, ssl.SSLError):
        pass
    return received


def read_head(link):
    head = b""
    while not head.endswith(b"\r\n\r\n") and (byte := link.recv(1)):
        head += byte
    return head


def secured(link, case):
    """TLS inside `link`, trusting what the session is told to trust; the certificate's name is not compared."""
    trust = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    trust.check_hostname = False
    if case.get("alpn"):
        trust.set_alpn_protocols(case["alpn"])
    return trust.wrap_socket(link, server_hostname=case["sni"])


def tell(link, case):
    if "sni" in case:
        try:
            link = secured(link, case)
        except (ConnectionError, ssl.SSLError):
            return b""  # cut within the handshake
    send(link, case)
    return read_all(link)


def by_proxy(case):
    with proxy() as link:
        send(link, case)
        return read_all(link)


def by_tunnel(case):
    with proxy() as link:
        host, port = case["to"]
        place = f"{host}:{port}"
        link.sendall(filled(case, f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n"))
        head = read_head(link)
        return head + (tell(link, case) if b" 200 " in head else read_all(link))


def by_socks(case):
    """RFC 1928; `to` is the address part and port as they are sent (hexadecimal)."""
    with proxy() as link:
        link.sendall(b"\x05\x01\x00")
        head = link.recv(2)
        if head != b"\x05\x00":
            return head + read_all(link)
        link.sendall(bytes.fromhex(case["request"]))
        reply = link.recv(10)
        return reply + (tell(link, case) if reply[1:2] == b"\x00" else read_all(link))


def by_itself(case):
    with socket.create_connection(tuple(case["to"]), 4) as link:
        link.settimeout(6)
        return tell(link, case)


def by_datagram(case):
    family = socket.AF_INET6 if ":" in case["to"][0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as link:
        link.settimeout(2)
        link.sendto(filled(case, case["data"]), tuple(case["to"]))
        return link.recv(4096)


WAYS = {
    "proxy": by_proxy,
    "tunnel": by_tunnel,
    "socks": by_socks,
    "itself": by_itself,
    "datagram": by_datagram,
}


def answer(case):
    try:
        return {"received": WAYS[case["way"]](case).decode("latin-1")[:6000], "error": None}
    except OSError as error:
        return {"received": "", "error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(answer, map(json.loads, sys.argv[1:])))
    print(json.dumps({"proxy": PROXY.port, "answers": answers}))
