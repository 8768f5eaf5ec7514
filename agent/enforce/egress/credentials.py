"""What a request's head says about credentials: where placeholders stand, and what other credentials it carries. Pure.

Rules kept here: a placeholder is replaced only in the header fields that its secret names, once, plain or inside
``Authorization: Basic``; anywhere else it is a leak, and so is the value itself wherever it comes from the session; at
a host that pins its credential, everything that could be another credential is refused, by the names of fields and
query parameters and by the scheme in front of a value. What is refused is named, never quoted. A credential inside a
body is not seen here.

Sources: RFC 7617 (Basic), RFC 6750 (Bearer, and ``access_token`` in a query).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from agent.enforce.egress.engine_requests import Head, Refusal, printable
from agent.enforce.egress.secrets import LEAK_INSTEAD, SECRET_LEAK, HeldSecret, Secrets, leak_reason
from agent.policy.model import Secret
from agent.policy.terms import Terms
from agent.values import dataclass

CREDENTIAL_PINNED: Final = "credential-pinned"

_BASIC: Final = re.compile(rb"basic +([A-Za-z0-9+/]+={0,2})", re.IGNORECASE)
_SCHEME: Final = re.compile(rb"(?:basic|bearer|token|digest|negotiate|apikey|aws4-hmac-sha256)[ \t]", re.IGNORECASE)
_ENDINGS: Final = ("token", "key", "apikey", "authorization", "auth", "secret", "password", "credential", "credentials")
_NO_CREDENTIALS: Final = frozenset(
    {"sec-websocket-key", "idempotency-key", "x-idempotency-key", "x-csrf-token", "x-xsrf-token", "cache-key"}
)
_QUERY_ENDINGS: Final = (
    *("token", "apikey", "accesskey", "accesskeyid", "secret", "password", "passwd", "signature", "credential"),
    *("authorization", "clientsecret"),
)
_QUERY_WORDS: Final = frozenset({"key", "auth", "sig", "pwd", "jwt", "pat"})
_QUERY_HARMLESS: Final = re.compile(r".*(?:page|next|continuation|sync|csrf|xsrf)token")
_BASIC_USERS: Final = frozenset(
    {b"", b"git", b"oauth", b"oauth2", b"token", b"__token__", b"user", b"username", b"x-access-token", b"x-token-auth"}
)
_AFTER_USER: Final = frozenset({b"", b"x-oauth-basic"})
_DROPPED: Final = frozenset({"cookie"})
_SUBPROTOCOLS: Final = "sec-websocket-protocol"
_IN_SUBPROTOCOL: Final = re.compile(rb"key|token|bearer|auth|jwt|secret|passw|credential", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Injection:
    """One header field whose placeholder is to be replaced. `index`: its place in the head; `value`: the new one."""

    index: int
    header: str
    secret: str
    value: bytes
    alone: bool
    """The old value was the placeholder and nothing that could be another credential."""


def plan(head: Head, entries: Sequence[Secret], secrets: Secrets) -> tuple[Injection, ...] | Refusal:
    """What is to be injected into this request to a host that `entries` name; or why it may not go on."""
    if not secrets:
        return ()
    everything = b"\n".join((head.target, *(part for field in head.headers for part in field)))
    if secrets.find(everything) is None:
        return ()
    found: list[Injection] = []
    for index, (name, value) in enumerate(head.headers):
        field = name.decode("latin-1").lower()
        injection, rest = _injection(index, field, value, entries, secrets)
        leaked = secrets.find(name)
        if leaked is not None:
            return leak(leaked, "the name of a header field")
        leaked = secrets.find(rest)
        if leaked is not None:
            return leak(leaked, f"the header field {printable(field, 64)}")
        if injection is not None:
            found.append(injection)
    leaked = secrets.find(head.target)
    if leaked is not None:
        return leak(leaked, "the URL")
    return _unambiguous(head, found) or tuple(found)


def pinned(
    head: Head, injections: Sequence[Injection], entries: Sequence[Secret], secrets: Secrets, terms: Terms
) -> Refusal | None:
    """Why the request may not go on where the host pins its credential; None where it may."""
    wanted = {each.secret for each in terms.credentials if each.only and (each.secret in secrets or not each.optional)}
    if not wanted:
        return None
    own = {field for entry in entries if entry.name in wanted for field in entry.headers}
    fitting = {each.index for each in injections if {each.secret} == wanted and each.alone}
    for index, (name, value) in enumerate(head.headers):
        field = name.decode("latin-1").lower()
        if field in _DROPPED and field not in own:
            continue
        if (field in own or _is_credential(field, value)) and index not in fitting:
            return _other(wanted, f"the header field {printable(field, 64)}")
    key = _credential_in_query(head.query)
    return None if key is None else _other(wanted, f"the query parameter {printable(key, 64)}")


def dropped(terms: Terms, secrets: Secrets) -> frozenset[str]:
    """Header fields that are taken off before a request goes to a host that pins its credential: a cookie could be one,
    and clients return whatever a load balancer gave them."""
    only = any(each.only and (each.secret in secrets or not each.optional) for each in terms.credentials)
    return _DROPPED if only else frozenset()


def leak(secret: str, where: str) -> Refusal:
    """The refusal of a secret in the wrong place."""
    return Refusal(403, SECRET_LEAK, leak_reason(secret, where), LEAK_INSTEAD)


def _injection(
    index: int, field: str, value: bytes, entries: Sequence[Secret], secrets: Secrets
) -> tuple[Injection | None, bytes]:
    """The injection into one field, if any, and what of its value is still to be searched for secrets."""
    for entry in entries:
        if field not in entry.headers:
            continue
        held = secrets[entry.name]
        placeholder = held.placeholder.encode()
        if value.count(placeholder) == 1:
            new = value.replace(placeholder, held.value.encode())
            alone = re.fullmatch(rb"(?:[A-Za-z]{1,16} +)?" + re.escape(placeholder), value) is not None
            return Injection(index, field, entry.name, new, alone), value.replace(placeholder, b"\0")
        basic = _basic(value)
        if basic is not None and basic.count(placeholder) == 1:
            new = b"Basic " + base64.b64encode(basic.replace(placeholder, held.value.encode()))
            return Injection(index, field, entry.name, new, _alone(basic, held)), basic.replace(placeholder, b"\0")
    return None, value


def _basic(value: bytes) -> bytes | None:
    match = _BASIC.fullmatch(value.strip())
    if match is None:
        return None
    try:
        return base64.b64decode(match[1], validate=True)
    except binascii.Error:
        return None


def _alone(basic: bytes, held: HeldSecret) -> bool:
    """A user name can be a credential as well: beside a pinned one only words that say nothing are taken."""
    user, _, password = basic.partition(b":")
    placeholder = held.placeholder.encode()
    return (password == placeholder and user.lower() in _BASIC_USERS) or (
        user == placeholder and password in _AFTER_USER
    )


def _unambiguous(head: Head, injections: Sequence[Injection]) -> Refusal | None:
    """A field that is injected stands once: what the upstream takes of two is not known."""
    for each in injections:
        if len(head.values(each.header.encode("latin-1"))) > 1:
            return Refusal(400, "malformed-request", f"the header field {each.header} carries a secret and is repeated")
    return None


def _is_credential(field: str, value: bytes) -> bool:
    if field in _NO_CREDENTIALS:
        return False
    if field == _SUBPROTOCOLS:  # browsers can set no other field of a WebSocket, so services take credentials here
        return _IN_SUBPROTOCOL.search(value) is not None
    words = field.replace("_", "-").split("-")
    return words[-1].endswith(_ENDINGS) or "auth" in words or _SCHEME.match(value.strip()) is not None


def _credential_in_query(query: bytes) -> str | None:
    for pair in re.split(rb"[&;]", query):
        key = unquote_to_bytes(pair.partition(b"=")[0].replace(b"+", b" ")).decode("latin-1")
        plain = re.sub(r"[^a-z0-9]", "", key.lower())
        harmless = _QUERY_HARMLESS.fullmatch(plain) is not None
        if plain in _QUERY_WORDS or (plain.endswith(_QUERY_ENDINGS) and not harmless):
            return key
    return None


def _other(wanted: set[str], where: str) -> Refusal:
    names = ", ".join(sorted(wanted))
    return Refusal(
        403,
        CREDENTIAL_PINNED,
        f"this host takes the secret {names} and no other credential; one is in {where}",
        "send the session's placeholder and nothing else; with Basic, under the user name x-access-token",
    )
