"""What a file of `policies/patterns/` may say: known shapes of credentials."""

from __future__ import annotations

from typing import Final

from agent.policy.shape import Key, ListShape, NumberShape, RecordShape, TextShape

_EXAMPLE: Final = ListShape(
    "One example in pieces, which are joined; a piece x*36 is 36 times the character x.",
    TextShape("A piece.", meant="a piece of text"),
    single=True,
    nonempty="write the example",
)

PATTERNS: Final = RecordShape(
    "Known shapes of credentials.",
    (
        Key("version", NumberShape("The version of this format.", 1, 1), required=True),
        Key(
            "patterns",
            ListShape(
                "The shapes.",
                RecordShape(
                    "One shape.",
                    (
                        Key(
                            "id",
                            TextShape("Its name in events.", pattern=r"[a-z0-9]+(?:-[a-z0-9]+)*", meant="an id"),
                            required=True,
                        ),
                        Key("description", TextShape("What it is.", meant="a sentence", prose=True), required=True),
                        Key("regex", TextShape("A regular expression for bytes.", meant="a regex"), required=True),
                        Key(
                            "keywords",
                            ListShape(
                                "Texts of which every match holds one, in any case: searched first, for speed.",
                                TextShape("A text.", meant="a text"),
                                single=True,
                                nonempty="leave the key out",
                            ),
                        ),
                        Key(
                            "examples",
                            RecordShape(
                                "Checked whenever the file is read.",
                                (
                                    Key("match", ListShape("What it must find.", _EXAMPLE), required=True),
                                    Key("no_match", ListShape("What it must not find.", _EXAMPLE), required=True),
                                ),
                                name="the examples",
                            ),
                            required=True,
                        ),
                    ),
                    name="a pattern",
                ),
                nonempty="name at least one pattern",
            ),
            required=True,
        ),
    ),
    name="a pattern file",
)
