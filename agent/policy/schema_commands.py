"""The keys of command rules and packs (a part of `agent.policy.schema`)."""

from __future__ import annotations

from typing import Final

from agent.policy.model import InDoubt, Unverifiable
from agent.policy.schema_common import ID, INSTEAD, MODE, REASON, SEVERITY, examples
from agent.policy.shape import FlagShape, Key, ListShape, NumberShape, RecordShape, TextShape

_WORD: Final = TextShape("A word of the command.", meant="a word")
_OPTION: Final = TextShape("An option without dashes.", pattern=r"[^-\s].*", meant="an option without dashes")
_PROGRAM: Final = TextShape(
    "A program's name, or a group of them: <shell>, <interpreter>.",
    pattern=r"[^/\s]+",
    meant="a program's name without directory",
)


def _list(doc: str, item: TextShape) -> ListShape:
    return ListShape(doc, item, single=True, nonempty="leave the key out")


MATCH: Final = RecordShape(
    "What the rule looks at; every key given must hold.",
    (
        Key(
            "program",
            ListShape(
                "Base names of programs, by meaning (mkfs is also mkfs.ext4); wildcards allowed; <shell> and "
                "<interpreter> stand for all of them. Without the key: any program.",
                _PROGRAM,
                single=True,
                nonempty="name the program, or leave the key out",
            ),
        ),
        Key("subcommand", _list("The first operands, in order; wildcards and alternatives (rm|rb) allowed.", _WORD)),
        Key(
            "options",
            _list(
                "Options that must all be there: long names, letters, or names of meaning such as recursive; "
                "alternatives by | (force|f), a value by = (type=module).",
                _OPTION,
            ),
        ),
        Key("without", _list("Options of which none may be there, written as under options.", _OPTION)),
        Key(
            "operands",
            _list(
                "Globs of which one operand must match, relative to the command's directory; ~ is the session's home. "
                "Classes of paths: <system>, <home>, <workspace>, <outside>, <device>, <agent>, <secret-file>.",
                _WORD,
            ),
        ),
        Key(
            "words",
            _list(
                "Globs of which one word behind the program must match as text, options included; <secret> is the "
                "literal text of a credential.",
                _WORD,
            ),
        ),
        Key(
            "redirects",
            _list(
                "Redirections of which one must be there: '> GLOB' for any that writes, '< GLOB' for any that reads; "
                "globs and classes as under operands.",
                TextShape("A redirection.", pattern=r"[<>] +\S.*", meant="'> GLOB' or '< GLOB'"),
            ),
        ),
        Key(
            "environment",
            _list(
                "Variables of which one must be set for the command: NAME, or NAME=GLOB.",
                TextShape("A variable.", pattern=r"[A-Za-z_*?][A-Za-z0-9_*?%]*(=.*)?", meant="NAME or NAME=GLOB"),
            ),
        ),
        Key("piped_from", _list("Programs of which one must give it the data that it reads.", _PROGRAM)),
        Key("code_from", _list("Programs of which one must give it the code that it executes.", _PROGRAM)),
    ),
    name="a match",
)

_TAGS: Final = ListShape(
    "What the rule is about, for readers and reports.",
    TextShape("A tag.", pattern=r"[a-z0-9][a-z0-9-]*", meant="a tag (lower case letters, digits, '-')", longest=40),
    single=True,
)
_IN_DOUBT: Final = TextShape(
    "What becomes of a command that the rule may describe, which is known only when it runs: unverifiable (the "
    "default), or allow, for rules that are not worth holding it up.",
    tuple(str(choice) for choice in InDoubt),
    meant="unverifiable or allow",
)


_FROM_ITSELF: Final = FlagShape(
    "true: the rule leaves alone what another process of the same program starts, as git stash calls git reset: "
    "the outer command was decided."
)


def _rule(*, packed: bool) -> tuple[Key, ...]:
    return (
        Key("id", ID, required=packed),
        Key("match", MATCH, required=True),
        Key("severity", SEVERITY, required=packed),
        Key("in_doubt", _IN_DOUBT),
        Key("unless_from_itself", _FROM_ITSELF),
        Key("tags", _TAGS, required=packed),
        Key("reason", REASON, required=packed),
        Key("instead", INSTEAD, required=packed),
        Key("examples", examples("a command line", both=True), required=True),
    )


COMMANDS: Final = RecordShape(
    "Commands that are refused before they run. A tripwire and a seat belt: paths and egress are the wall.",
    (
        Key("mode", MODE),
        Key(
            "unverifiable",
            TextShape(
                "A command whose meaning cannot be known before it runs: supervise lets it run only where every exec "
                "it leads to is decided again; deny refuses it.",
                tuple(str(choice) for choice in Unverifiable),
                meant="supervise or deny",
            ),
        ),
        Key(
            "deny",
            ListShape(
                "The commands that are refused.",
                RecordShape(
                    "A command that is refused.",
                    _rule(packed=False),
                    name="a command rule",
                    shorthand=TextShape(
                        "A program, with options and one operand, such as mkfs or dd if=/dev/zero.", meant="a command"
                    ),
                ),
            ),
        ),
    ),
    name="the section commands",
    empty=True,
)

PACKS: Final = ListShape(
    "Shipped packs of command rules, added to commands.deny.",
    TextShape("A pack's name.", pattern=r"[a-z0-9][a-z0-9-]*", meant="a pack's name", longest=64),
)

PACK: Final = RecordShape(
    "A shipped pack of command rules.",
    (
        Key("version", NumberShape("The version of this format.", 1, 1), required=True),
        Key("about", TextShape("What the pack is for.", meant="a sentence", prose=True), required=True),
        Key(
            "deny",
            ListShape(
                "The commands that are refused.",
                RecordShape("A command that is refused.", _rule(packed=True), name="a pack's rule"),
                nonempty="a pack has at least one rule",
            ),
            required=True,
        ),
    ),
    name="a pack",
)
