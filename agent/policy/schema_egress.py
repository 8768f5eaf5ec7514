"""What a policy file may say about egress and secrets (a part of `agent.policy.schema`)."""

from __future__ import annotations

from typing import Final

from agent.policy.model import Tls
from agent.policy.request import Protocol
from agent.policy.schema_common import ID, ID_PATTERN, INSTEAD, MODE, REASON, SEVERITY, examples, size, span
from agent.policy.shape import (
    FlagShape,
    Key,
    ListShape,
    MapShape,
    NumberShape,
    RecordShape,
    TextShape,
)

HOST: Final = TextShape(
    "A host name, '*.example.com' for any depth below it (not itself), or an address literal.",
    meant="a host",
    longest=1100,
)
_PORTS: Final = ListShape(
    "TCP ports; default 443 (80 with protocol http). In a deny: all ports where it is not given.",
    NumberShape("A TCP port.", 1, 65535),
    single=True,
    nonempty="name at least one port, or leave the key out",
)
_PROTOCOL: Final = TextShape(
    "tls: HTTP inside TLS (default); http: plain HTTP; tcp: anything else. In a deny: any where it is not given.",
    tuple(str(protocol) for protocol in Protocol),
    meant="a protocol",
)
_METHODS: Final = ListShape(
    "HTTP methods, in capitals; on TLS this needs interception of the host.",
    TextShape("An HTTP method.", pattern=r"[A-Z][A-Z-]{0,30}", meant="an HTTP method in capitals, such as GET"),
    single=True,
    nonempty="name at least one method, or leave the key out for any",
)
_URL_PATHS: Final = ListShape(
    "Globs of URL paths (decoded once, without query): * inside a segment, ** for segments; /simple/** is everything "
    "below /simple. On TLS this needs interception of the host.",
    TextShape("A URL path glob.", meant="a path that starts with '/'"),
    single=True,
    nonempty="name at least one path, or leave the key out for any",
)
_ADDRESSES: Final = ListShape(
    "Non-public address ranges that this host may resolve to, such as 10.20.0.0/16.",
    TextShape("An address range.", meant="an address range such as 10.20.0.0/16"),
    single=True,
    nonempty="name at least one range, or leave the key out: only public addresses are reached then",
)

_FIELD_NAME: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # RFC 9110 section 5.6.2
_FIELD: Final = TextShape("A header field's name.", pattern=_FIELD_NAME, meant="a header field's name", longest=100)
_GLOBS: Final = ListShape(
    "Globs (* for any run of characters) of which one must match the value.",
    TextShape("A glob.", meant="a value, or a glob with *"),
    single=True,
    nonempty="name at least one value; '*' for any",
)
_HEADERS: Final = MapShape(
    "Header fields that the request must have, each with a value that fits. Needs interception on TLS.",
    _FIELD,
    _GLOBS,
    name="a mapping of header fields",
)
_QUERY: Final = MapShape(
    "Query parameters that the request must have, each with a value that fits, decoded. Needs interception on TLS.",
    TextShape("A parameter's name, decoded.", meant="a parameter's name", longest=200),
    _GLOBS,
    name="a mapping of query parameters",
)

_HOST_LIMITS: Final = RecordShape(
    "Bounds of what a session may do with this host. Where several rules allow it, the smallest of each kind holds.",
    (
        Key("body", size("Size of one request's body; 0: no bodies. On TLS this needs interception.", 0)),
        Key("upload", size("Bytes sent to the host in all by one session.")),
        Key("download", size("Bytes received from the host in all by one session.")),
        Key("connections_per_minute", NumberShape("New connections to the host within a minute.", 1, 1_000_000)),
        Key("connections", NumberShape("Connections to the host at once.", 1, 1_000_000)),
        Key("idle", span("Time without a byte after which a connection is closed.")),
    ),
    name="the limits of a host rule",
)
_TLS: Final = TextShape(
    "inspect: always through interception; passthrough: never, for clients that pin their server's certificate. "
    "Without it: only where a rule needs to look inside.",
    tuple(str(choice) for choice in Tls),
    meant="inspect or passthrough",
)
_SECRET_NAME: Final = TextShape(
    "A secret's name.", pattern=ID_PATTERN, meant="a secret's name (letters, digits, '.', '_', '-')", longest=64
)
_CREDENTIAL_KEYS: Final = (
    Key("secret", _SECRET_NAME, required=True),
    Key("only", FlagShape("Refuse requests with any other credential. Default false.")),
)
_GIT_REPOSITORIES: Final = ListShape(
    "Globs of repositories, such as example/project, example/* or **.",
    TextShape("A repository: its path in the URL, without leading '/' and '.git'.", meant="a repository's path"),
    single=True,
    nonempty="name at least one repository, or leave the key out for none",
)
_GIT: Final = RecordShape(
    "Git over HTTPS, by repository, and nothing else on this host. Needs interception of the host.",
    (Key("fetch", _GIT_REPOSITORIES), Key("push", _GIT_REPOSITORIES)),
    name="a git rule",
)
_RULE_MODE: Final = TextShape(
    "observe: what this rule refuses is only recorded: the denial, or in an allow what its conditions rule out.",
    MODE.choices,
    meant="a mode",
)


def _host_record(doc: str, *extra: Key) -> RecordShape:
    return RecordShape(
        doc,
        (
            Key("id", ID),
            Key("host", HOST, required=True),
            Key("ports", _PORTS),
            Key("protocol", _PROTOCOL),
            Key("methods", _METHODS),
            Key("paths", _URL_PATHS),
            Key("headers", _HEADERS),
            Key("query", _QUERY),
            *extra,
            Key("mode", _RULE_MODE),
            Key("severity", SEVERITY),
            Key("reason", REASON),
            Key("instead", INSTEAD),
            Key("examples", examples("a URL, with a method in front if it matters, or a host")),
        ),
        name="a host rule",
        shorthand=HOST,
    )


def _allow_record(doc: str, *credential: Key) -> RecordShape:
    return _host_record(
        doc,
        Key("addresses", _ADDRESSES),
        Key("limits", _HOST_LIMITS),
        Key("tls", _TLS),
        Key(
            "credential",
            RecordShape("The secret that belongs to this host.", (*_CREDENTIAL_KEYS, *credential), name="a credential"),
        ),
        Key("git", _GIT),
        Key("scan", FlagShape("Search uploads to this host for credentials of known shapes. Needs interception.")),
    )


ALLOWED_HOST: Final = _allow_record("A host.")
DENIED_HOST: Final = _host_record("A host, closed.")
BUNDLED_HOST: Final = _allow_record(
    "A host.",
    Key("optional", FlagShape("Without effect while the policy has no secret of this name for this host.")),
)

EGRESS: Final = RecordShape(
    "Where the session may go. Nothing is allowed that is not named here.",
    (
        Key("mode", MODE),
        Key(
            "limits",
            RecordShape(
                "Bounds of the session's traffic as a whole. Without a key the agent's default holds.",
                (
                    Key("connections", NumberShape("Connections at once.", 1, 1_000_000)),
                    Key("connections_per_minute", NumberShape("New connections within a minute.", 1, 1_000_000)),
                    Key("head", span("Time until a request's head is complete.")),
                    Key("idle", span("Time without a byte after which a connection is closed.")),
                ),
                name="the limits of egress",
            ),
        ),
        Key(
            "trust",
            ListShape(
                "Certificate authorities for upstreams, besides the system's. Only in the first layer.",
                TextShape("Certificates in PEM.", meant="a certificate in PEM", longest=100_000, lines=True),
                longest=100,
            ),
        ),
        Key("allow", ListShape("The hosts that may be reached.", ALLOWED_HOST)),
        Key("deny", ListShape("Taken out again, whatever allows it.", DENIED_HOST)),
    ),
    name="the section egress",
    empty=True,
)

_VARIABLE: Final = TextShape(
    "A variable's name.", pattern=r"[A-Za-z_][A-Za-z0-9_]*", meant="a variable's name", longest=200
)
SECRETS: Final = ListShape(
    "Credentials that the session uses without ever having them: it sees a placeholder, which the proxy replaces on "
    "the way to the named hosts. Only in the first layer.",
    RecordShape(
        "A secret.",
        (
            Key("name", _SECRET_NAME, required=True),
            Key(
                "from",
                RecordShape(
                    "Where the agent gets the value from: one of these.",
                    (
                        Key("env", _VARIABLE),
                        Key("file", TextShape("An absolute path.", meant="an absolute path", longest=4096)),
                        Key(
                            "command",
                            ListShape(
                                "A program by absolute path, and its arguments; its output is the value.",
                                TextShape("A word of the command.", meant="a word", longest=4096),
                                nonempty="name the program",
                            ),
                        ),
                    ),
                    name="a secret's source",
                ),
                required=True,
            ),
            Key(
                "hosts",
                ListShape(
                    "The hosts that get the value: each allowed by this policy, over TLS.",
                    HOST,
                    single=True,
                    nonempty="name the hosts that the secret is for",
                ),
                required=True,
            ),
            Key(
                "header",
                ListShape(
                    "The header fields in which the placeholder is replaced.",
                    _FIELD,
                    single=True,
                    nonempty="name the header field that carries the credential, such as authorization",
                ),
                required=True,
            ),
            Key(
                "as",
                RecordShape(
                    "Where the session finds the placeholder: one of these, or both.",
                    (
                        Key("env", _VARIABLE),
                        Key("file", TextShape("An absolute path, or ~/path.", meant="an absolute path, or ~/path")),
                    ),
                    name="a placeholder's place",
                ),
                required=True,
            ),
        ),
        name="a secret",
    ),
    longest=200,
)
