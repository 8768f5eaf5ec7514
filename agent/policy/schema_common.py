"""The keys that rules of all kinds share (a part of `agent.policy.schema`)."""

from __future__ import annotations

from typing import Final

from agent.policy.decision import Severity
from agent.policy.model import Mode
from agent.policy.shape import Key, ListShape, QuantityShape, RecordShape, TextShape

ID_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

ID: Final = TextShape(
    "The rule's name in decisions, logs and exceptions. Without it the rule is named by its place, as egress.allow[0]: "
    "its position in the list of the whole directory, files in the order of their names, every entry counted.",
    pattern=ID_PATTERN,
    meant="a rule id (letters, digits, '.', '_', '-'; at most 64)",
    longest=64,
)
REASON: Final = TextShape("Why the rule exists; shown with every denial it causes.", meant="a sentence", prose=True)
INSTEAD: Final = TextShape("What to do instead; shown with every denial.", meant="a sentence", prose=True)
SEVERITY: Final = TextShape(
    "How bad a match is; alerts and reviews sort by it.", tuple(str(s) for s in Severity), meant="a severity"
)
MODE: Final = TextShape(
    "enforce refuses; observe only records what would have been refused. One layer that enforces makes all enforce.",
    tuple(str(mode) for mode in Mode),
    meant="a mode",
)

_SIZES: Final = (
    ("B", 1),
    ("KB", 10**3),
    ("MB", 10**6),
    ("GB", 10**9),
    ("KiB", 2**10),
    ("MiB", 2**20),
    ("GiB", 2**30),
)
_SPANS: Final = (("s", 1), ("m", 60), ("h", 3600))
MOST_BYTES: Final = 2**50
LONGEST_SPAN: Final = 7 * 24 * 3600


def examples(what: str, *, both: bool = False) -> RecordShape:
    """`both`: examples of either kind have to be given."""
    example = TextShape(f"One example: {what}.", meant="an example", longest=4000)
    nonempty = "write at least one example" if both else ""
    return RecordShape(
        "Checked when the policy is loaded: a rule that disagrees with its own example is an error.",
        (
            Key("match", ListShape("What the rule must match.", example, nonempty=nonempty), required=both),
            Key("no_match", ListShape("What the rule must not match.", example, nonempty=nonempty), required=both),
        ),
        name="the examples",
    )


def size(doc: str, low: int = 1) -> QuantityShape:
    """Bytes, or a size with a unit."""
    return QuantityShape(doc, _SIZES, "bytes", low, MOST_BYTES)


def span(doc: str) -> QuantityShape:
    """Seconds, or a time with a unit."""
    return QuantityShape(doc, _SPANS, "seconds", 1, LONGEST_SPAN)
