"""THE table of what a policy file may say, and the JSON Schema made from it.

`agent.policy.reader` reads by this table and `policy schema` prints it, so that editor, linter and agent agree. Keys
are documented here once.
"""

from __future__ import annotations

from typing import Final, assert_never

from agent.policy.decision import Severity
from agent.policy.model import Durability, Mode, OnFailure, Unverifiable
from agent.policy.request import Protocol
from agent.policy.shape import (
    DayShape,
    Key,
    ListShape,
    NumberShape,
    RecordShape,
    Shape,
    TextShape,
)

type Json = str | int | bool | list["Json"] | dict[str, "Json"]

ID_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

_ID: Final = TextShape(
    "The rule's name in decisions, logs and exceptions. Without it the rule is named by its place, as egress.allow[0]: "
    "its position in the list of the whole directory, files in the order of their names, every entry counted.",
    pattern=ID_PATTERN,
    meant="a rule id (letters, digits, '.', '_', '-'; at most 64)",
    longest=64,
)
_REASON: Final = TextShape("Why the rule exists; shown with every denial it causes.", meant="a sentence", prose=True)
_INSTEAD: Final = TextShape("What to do instead; shown with every denial.", meant="a sentence", prose=True)
_SEVERITY: Final = TextShape(
    "How bad a match is; alerts and reviews sort by it.", tuple(str(s) for s in Severity), meant="a severity"
)
_MODE: Final = TextShape(
    "enforce refuses; observe only records what would have been refused. One layer that enforces makes all enforce.",
    tuple(str(mode) for mode in Mode),
    meant="a mode",
)


def _examples(what: str) -> RecordShape:
    example = TextShape(f"One example: {what}.", meant="an example", longest=4000)
    return RecordShape(
        "Checked when the policy is loaded: a rule that disagrees with its own example is an error.",
        (
            Key("match", ListShape("What the rule must match.", example)),
            Key("no_match", ListShape("What the rule must not match.", example)),
        ),
        name="the examples",
    )


_HOST: Final = TextShape(
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


def _host_record(doc: str, *extra: Key) -> RecordShape:
    return RecordShape(
        doc,
        (
            Key("id", _ID),
            Key("host", _HOST, required=True),
            Key("ports", _PORTS),
            Key("protocol", _PROTOCOL),
            Key("methods", _METHODS),
            Key("paths", _URL_PATHS),
            *extra,
            Key("severity", _SEVERITY),
            Key("reason", _REASON),
            Key("instead", _INSTEAD),
            Key("examples", _examples("a URL, with a method in front if it matters, or a host")),
        ),
        name="a host rule",
        shorthand=_HOST,
    )


_EGRESS: Final = RecordShape(
    "Where the session may go. Nothing is allowed that is not named here.",
    (
        Key("mode", _MODE),
        Key(
            "allow", ListShape("The hosts that may be reached.", _host_record("A host.", Key("addresses", _ADDRESSES)))
        ),
        Key("deny", ListShape("Taken out again, whatever allows it.", _host_record("A host, closed."))),
    ),
    name="the section egress",
    empty=True,
)

_WORD: Final = TextShape("A word of the command.", meant="a word")
_MATCH: Final = RecordShape(
    "What the rule looks at; every key given must hold.",
    (
        Key(
            "program",
            ListShape(
                "Base names of programs, by meaning (mkfs is also mkfs.ext4); wildcards allowed.",
                TextShape("A program's name.", pattern=r"[^/\s]+", meant="a program's name without directory"),
                single=True,
                nonempty="name the program",
            ),
            required=True,
        ),
        Key("subcommand", ListShape("The first operands, in order.", _WORD, single=True, nonempty="leave the key out")),
        Key(
            "options",
            ListShape(
                "Options that must be there: long names, letters, or names of meaning such as recursive.",
                TextShape("An option without dashes.", pattern=r"[^-\s].*", meant="an option without dashes"),
                single=True,
                nonempty="leave the key out",
            ),
        ),
        Key(
            "operands",
            ListShape(
                "Globs of which one operand must match, relative to the command's directory; ~ is the session's home.",
                _WORD,
                single=True,
                nonempty="leave the key out",
            ),
        ),
    ),
    name="a match",
)

_COMMAND_RULE: Final = RecordShape(
    "A command that is refused.",
    (
        Key("id", _ID),
        Key("match", _MATCH, required=True),
        Key("severity", _SEVERITY),
        Key("reason", _REASON),
        Key("instead", _INSTEAD),
        Key("examples", _examples("a command line")),
    ),
    name="a command rule",
    shorthand=TextShape("A program, with options and one operand, such as mkfs or dd if=/dev/zero.", meant="a command"),
)

_COMMANDS: Final = RecordShape(
    "Commands that are refused before they run. A tripwire and a seat belt: paths and egress are the wall.",
    (
        Key("mode", _MODE),
        Key(
            "unverifiable",
            TextShape(
                "A command whose meaning cannot be known before it runs: supervise lets it run only where every exec "
                "it leads to is decided again; deny refuses it.",
                tuple(str(choice) for choice in Unverifiable),
                meant="supervise or deny",
            ),
        ),
        Key("deny", ListShape("The commands that are refused.", _COMMAND_RULE)),
    ),
    name="the section commands",
    empty=True,
)


def _path_list(doc: str, path: TextShape) -> ListShape:
    record = RecordShape(
        doc,
        (
            Key("id", _ID),
            Key("path", path, required=True),
            Key("reason", _REASON),
            Key("instead", _INSTEAD),
            Key("examples", _examples("an absolute path")),
        ),
        name="a path rule",
        shorthand=path,
    )
    return ListShape(doc, record)


_TREE: Final = TextShape("An absolute path; it stands for the whole tree.", meant="an absolute path", longest=4096)
_PATHS: Final = RecordShape(
    "What the session may write, read and execute. Nothing is granted that is not named here.",
    (
        Key("mode", _MODE),
        Key("write", _path_list("Trees to write; writing includes reading and executing.", _TREE)),
        Key("read", _path_list("Trees to read; reading includes executing.", _TREE)),
        Key(
            "protect",
            _path_list(
                "Never written, inside granted trees too, with everything below.",
                TextShape("A name, a path or a glob; without leading slash it holds at any depth.", meant="a path"),
            ),
        ),
    ),
    name="the section paths",
    empty=True,
)

_EXCEPTION: Final = RecordShape(
    "Cancels one rule of this layer for what it describes, until a day.",
    (
        Key("rule", TextShape("The id of a deny rule of the same layer.", meant="a rule id"), required=True),
        Key("match", _MATCH),
        Key("host", _HOST),
        Key("owner", TextShape("Who answers for it.", meant="a name", prose=True, longest=200), required=True),
        Key("reason", _REASON, required=True),
        Key("expires", DayShape("The last day on which it holds."), required=True),
    ),
    name="an exception",
)

DOCUMENT: Final = RecordShape(
    "A policy file of the Parhelia sandbox agent. All files of a directory add up to one layer.",
    (
        Key("version", NumberShape("The version of this format.", 1, 1)),
        Key(
            "use",
            ListShape(
                "Shipped bundles of egress hosts to allow.",
                TextShape("A bundle's name.", pattern=r"[a-z0-9][a-z0-9-]*", meant="a bundle's name", longest=64),
            ),
        ),
        Key("egress", _EGRESS),
        Key("commands", _COMMANDS),
        Key("paths", _PATHS),
        Key("exceptions", ListShape("Rules that do not hold for something, for some time.", _EXCEPTION)),
        Key(
            "audit",
            RecordShape(
                "How the audit log is kept.",
                (
                    Key(
                        "on_failure",
                        TextShape(
                            "What happens to an allow that cannot be recorded.",
                            tuple(str(choice) for choice in OnFailure),
                            meant="deny or continue",
                        ),
                    ),
                    Key(
                        "durable",
                        TextShape(
                            "group: an allow waits for the writer's acceptance; strict: for the disk.",
                            tuple(str(choice) for choice in Durability),
                            meant="group or strict",
                        ),
                    ),
                ),
                name="the section audit",
                empty=True,
            ),
        ),
        Key(
            "session",
            RecordShape(
                "The session's surroundings.",
                (
                    Key(
                        "env",
                        ListShape(
                            "Environment variables passed on to the session.",
                            TextShape(
                                "A variable's name.",
                                pattern=r"[A-Za-z_][A-Za-z0-9_]*",
                                meant="a variable's name",
                                longest=200,
                            ),
                        ),
                    ),
                ),
                name="the section session",
                empty=True,
            ),
        ),
    ),
    name="a policy file",
    empty=True,
)

BUNDLE: Final = RecordShape(
    "A shipped bundle: hosts to allow, and nothing else.",
    (
        Key("version", NumberShape("The version of this format.", 1, 1), required=True),
        Key(
            "allow",
            ListShape("The hosts.", _host_record("A host."), nonempty="a bundle has at least one host"),
            required=True,
        ),
    ),
    name="a bundle",
)


def json_schema(shape: RecordShape = DOCUMENT) -> dict[str, Json]:
    """The JSON Schema (draft 2020-12) of policy files. It knows shapes, not meanings: `policy lint` checks the rest."""
    schema = _schema(shape)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Parhelia policy file"} | schema


def _schema(shape: Shape) -> dict[str, Json]:
    match shape:
        case TextShape():
            return _text_schema(shape)
        case NumberShape():
            return {"type": "integer", "minimum": shape.low, "maximum": shape.high, "description": shape.doc}
        case DayShape():
            return {
                "type": "string",
                "format": "date",
                "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
                "description": shape.doc,
            }
        case ListShape():
            return _list_schema(shape)
        case RecordShape():
            return _record_schema(shape)
        case _:
            assert_never(shape)


def _text_schema(shape: TextShape) -> dict[str, Json]:
    schema: dict[str, Json] = {"type": "string", "minLength": 1, "maxLength": shape.longest, "description": shape.doc}
    if shape.choices:
        schema["enum"] = list(shape.choices)
    if shape.pattern is not None:
        schema["pattern"] = f"^(?:{shape.pattern})$"
    return schema


def _list_schema(shape: ListShape) -> dict[str, Json]:
    item = _schema(shape.item)
    schema: dict[str, Json] = {"type": "array", "items": item, "maxItems": shape.longest, "description": shape.doc}
    if shape.nonempty:
        schema["minItems"] = 1
    return {"anyOf": [schema, item], "description": shape.doc} if shape.single else schema


def _record_schema(shape: RecordShape) -> dict[str, Json]:
    required: list[Json] = [key.name for key in shape.keys if key.required]
    schema: dict[str, Json] = {
        "type": ["object", "null"] if shape.empty else "object",
        "properties": {key.name: _schema(key.shape) for key in shape.keys},
        "additionalProperties": False,
        "description": shape.doc,
    }
    if required:
        schema["required"] = required
    return (
        schema if shape.shorthand is None else {"anyOf": [_schema(shape.shorthand), schema], "description": shape.doc}
    )
