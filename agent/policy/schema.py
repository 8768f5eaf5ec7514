"""THE table of what a policy file may say.

`agent.policy.reader` reads by this table and `agent.policy.json_schema` prints it, so that editor, linter and agent
agree. Keys are documented here once; its parts are `schema_common`, `schema_commands`, `schema_control`,
`schema_detect`, `schema_egress` and `schema_tools`.
"""

from __future__ import annotations

from typing import Final

from agent.policy.model import Audited, Durability, OnFailure
from agent.policy.model_session import FEWEST_PROCESSES, LEAST_MEMORY
from agent.policy.schema_commands import COMMANDS, MATCH, PACKS
from agent.policy.schema_common import ID, INSTEAD, MODE, REASON, examples, size
from agent.policy.schema_control import CONTROL
from agent.policy.schema_detect import DETECT
from agent.policy.schema_egress import BUNDLED_HOST, DENIED_HOST, EGRESS, HOST, SECRETS
from agent.policy.schema_tools import TOOLS
from agent.policy.shape import DayShape, Key, ListShape, NumberShape, RecordShape, TextShape


def _path_list(doc: str, path: TextShape) -> ListShape:
    record = RecordShape(
        doc,
        (
            Key("id", ID),
            Key("path", path, required=True),
            Key("reason", REASON),
            Key("instead", INSTEAD),
            Key("examples", examples("an absolute path")),
        ),
        name="a path rule",
        shorthand=path,
    )
    return ListShape(doc, record)


_TREE: Final = TextShape("An absolute path; it stands for the whole tree.", meant="an absolute path", longest=4096)
_PLACE: Final = TextShape(
    "A name, a path or a glob; without leading slash it holds at any depth, after '~/' below the session's home.",
    meant="a path",
    longest=4096,
)
NOT_AUDITED: Final = "none"
"""Stands alone in `paths.audit`."""
_PATHS: Final = RecordShape(
    "What the session may write, read and execute. Nothing is granted that is not named here.",
    (
        Key("mode", MODE),
        Key("write", _path_list("Trees to write; writing includes reading and executing.", _TREE)),
        Key("read", _path_list("Trees to read; reading includes executing.", _TREE)),
        Key("protect", _path_list("Never written, inside granted trees too, with everything below.", _PLACE)),
        Key("watch", _path_list("Written like anything else; each change is recorded.", _PLACE)),
        Key("sensitive", _path_list("Files and trees whose denied reads are recorded with audit: reads.", _TREE)),
        Key(
            "audit",
            ListShape(
                "What is recorded wherever it is denied. writes: each call that would change a file, at a cost. reads: "
                "opens of sensitive files. none: as far as seen.",
                TextShape("One kind of access.", (NOT_AUDITED, *Audited), meant="none, writes or reads"),
                single=True,
                nonempty="write none, writes, reads or [writes, reads]",
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
        Key("match", MATCH),
        Key("host", HOST),
        Key("owner", TextShape("Who answers for it.", meant="a name", prose=True, longest=200), required=True),
        Key("reason", REASON, required=True),
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
        Key("packs", PACKS),
        Key("egress", EGRESS),
        Key("commands", COMMANDS),
        Key("paths", _PATHS),
        Key("tools", TOOLS),
        Key("control", CONTROL),
        Key("secrets", SECRETS),
        Key("detect", DETECT),
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
                    Key(
                        "limits",
                        RecordShape(
                            "What all processes of the session may take together. Of several layers the least holds.",
                            (
                                Key("pids", NumberShape("Processes and threads at once.", FEWEST_PROCESSES, 4_000_000)),
                                Key("memory", size("Memory, in bytes.", LEAST_MEMORY)),
                            ),
                            name="the limits of the session",
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
    "A shipped bundle: hosts to allow, and corners of them to close.",
    (
        Key("version", NumberShape("The version of this format.", 1, 1), required=True),
        Key(
            "allow",
            ListShape("The hosts.", BUNDLED_HOST, nonempty="a bundle has at least one host"),
            required=True,
        ),
        Key("deny", ListShape("What is taken out of them again.", DENIED_HOST)),
    ),
    name="a bundle",
)
