"""Header fields that are no policy's to ask for, because the proxy decides or writes them itself."""

from __future__ import annotations

from typing import Final

IDENTITY_FIELDS: Final = frozenset({"host", "authority"})
FRAMING_FIELDS: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Fields of one connection (RFC 9110 section 7.6.1), or of a message's framing: the proxy writes its own."""
