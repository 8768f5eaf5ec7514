"""TLS on both sides of an intercepted connection, on mitmproxy's own set-up code.

Rules kept here: the client is shown a leaf for exactly the connection's host, made from the in-memory CA (mitmproxy's
store on disk is never opened); the upstream is verified against the given bundle under that same host name; nothing
under TLS 1.2 on either side; the upstream is offered only protocols that the engine parses, and HTTP/2 only where the
client speaks it (HTTP/1 to HTTP/2 would need its framing headers rewritten).
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from types import SimpleNamespace

import certifi
import mitmproxy.ctx
from mitmproxy import certs, tls
from mitmproxy.addonmanager import Loader
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.options import Options
from mitmproxy.proxy.context import Context

from agent.enforce.egress.ca import InterceptionCA

# Mozilla's "intermediate" list for TLS 1.2; TLS 1.3 suites are OpenSSL's own
UPSTREAM_CIPHERS = ":".join(
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
    )
)


class EngineTls(TlsConfig):
    """mitmproxy's TLS set-up with our certificates and our bounds."""

    def __init__(self, ca: InterceptionCA) -> None:
        self._ca = ca
        self._chain = Path(in_memory("chain", ca.chain.encode())) if ca.chain else None  # read by `warm`, and kept
        # the store only carries the (absent) DH parameters; the CA's key is not given to it
        self.certstore = certs.CertStore(
            ca.leaf_key,  # type: ignore[arg-type]  # declared as RSA, used as whatever OpenSSL takes
            certs.Cert(ca.certificate),
            None,
            b"",
            None,  # type: ignore[arg-type]
        )

    def get_cert(self, conn_context: Context) -> certs.CertStoreEntry:
        address = conn_context.server.address
        if address is None:
            raise ValueError("a connection without a destination")
        return certs.CertStoreEntry(
            certs.Cert(self._ca.leaf(address[0])),
            self._ca.leaf_key,  # type: ignore[arg-type]
            self._chain,
            [],
        )

    def tls_start_server(self, tls_start: tls.TlsData) -> None:
        server = tls_start.conn
        if not isinstance(server, Server) or server.address is None:
            raise ValueError("an upstream without an address")
        server.sni = server.address[0]
        client_speaks_h2 = tls_start.context.client.alpn == b"h2"
        server.alpn_offers = [b"h2", b"http/1.1"] if client_speaks_h2 else [b"http/1.1"]
        super().tls_start_server(tls_start)


def engine_options(ca_file: str | None, more: str = "") -> Options:
    """mitmproxy's options, set once and made the process's own (`mitmproxy.ctx.options`).

    `ca_file`: whom upstreams may be certified by, None for the system's; `more`: and by these (PEM). Raises OSError.
    """
    trusted = ca_file or system_bundle()
    options = Options()
    loader = Loader(SimpleNamespace(options=options))  # type: ignore[no-untyped-call]
    Proxyserver().load(loader)  # type: ignore[no-untyped-call]
    TlsConfig.load(SimpleNamespace(), loader)  # type: ignore[arg-type, no-untyped-call]  # declares options only
    options.update(  # type: ignore[no-untyped-call]
        connection_strategy="lazy",
        rawtcp=False,
        http3=False,
        upstream_cert=False,
        ssl_insecure=False,
        ssl_verify_upstream_trusted_ca=_joined(trusted, more) if more else trusted,
        tls_version_client_min="TLS1_2",
        tls_version_server_min="TLS1_2",
        ciphers_server=UPSTREAM_CIPHERS,
        validate_inbound_headers=True,
        store_streamed_bodies=False,
    )
    mitmproxy.ctx.options = options
    return options


def _joined(bundle: str, more: str) -> str:
    return in_memory("trusted", Path(bundle).read_bytes().rstrip(b"\n") + b"\n" + more.encode())


def in_memory(name: str, data: bytes) -> str:
    """The path of a file in memory that lasts as long as this process; `warm` reads it, while that is permitted."""
    descriptor = os.memfd_create(name)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    return f"/proc/self/fd/{descriptor}"


def system_bundle() -> str:
    """OpenSSL's default bundle, else the one that comes with mitmproxy."""
    found = ssl.get_default_verify_paths().cafile
    return found if found is not None and Path(found).is_file() else certifi.where()


def warm(engine_tls: EngineTls, options: Options) -> None:
    """Load both OpenSSL contexts, the trusted bundle included, while the files can be read; mitmproxy keeps them.

    Raises RuntimeError where the bundle can't be loaded.
    """
    client = Client(peername=("", 0), sockname=("", 0), timestamp_start=0, state=ConnectionState.OPEN)
    context = Context(client, options)
    context.server = Server(address=("warm.invalid", 443))
    engine_tls.tls_start_client(tls.TlsData(client, context))
    engine_tls.tls_start_server(tls.TlsData(context.server, context))
