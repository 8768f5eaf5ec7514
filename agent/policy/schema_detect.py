"""The section `detect` (a part of `agent.policy.schema`)."""

from __future__ import annotations

from typing import Final

from agent.policy.model_detect import MOST_OCCURRENCES, WATCHED, Outcome, Response
from agent.policy.schema_common import ID_PATTERN, REASON, SEVERITY, size, span
from agent.policy.shape import Key, ListShape, NumberShape, RecordShape, TextShape

_ID: Final = TextShape(
    "The detector's name in events, alerts and the metric's label.",
    pattern=ID_PATTERN,
    meant="an id (letters, digits, '.', '_', '-'; at most 64)",
    longest=64,
)
_GLOB: Final = TextShape("A glob; * is any run of characters.", meant="a text, or a glob with *", longest=1000)


def _some(doc: str, item: TextShape, longest: int = 100) -> ListShape:
    return ListShape(doc, item, single=True, nonempty="name at least one, or leave the key out", longest=longest)


_SIGN: Final = RecordShape(
    "One kind of event; every key given must hold.",
    (
        Key(
            "events",
            _some("Event types.", TextShape("An event type.", WATCHED, meant="an event type that can be watched")),
            required=True,
        ),
        Key("rules", _some("Globs of which one must fit the rule that the event names.", _GLOB)),
        Key(
            "tags",
            _some(
                "The event's rule is a command rule of this policy that has one of these tags.",
                TextShape("A tag.", pattern=r"[a-z0-9][a-z0-9-]*", meant="a tag", longest=64),
            ),
        ),
        Key(
            "result",
            _some(
                "One of these results; any where it is left out. In observe mode what would be refused is a success.",
                TextShape("A result.", tuple(str(result) for result in Outcome), meant="a result"),
            ),
        ),
        Key("severity", SEVERITY),
        Key(
            "resources",
            _some("Globs, or classes of paths such as <secret-file>, of which one must fit the resource.", _GLOB),
        ),
    ),
    name="a sign",
)

_DETECTOR: Final = RecordShape(
    "Something to look for in the events of a session: so many within so long.",
    (
        Key("id", _ID, required=True),
        Key("when", ListShape("What counts: events with any of these signs.", _SIGN, single=True, nonempty="name one")),
        Key("count", NumberShape("How many occurrences within the window are a detection.", 1, MOST_OCCURRENCES)),
        Key("distinct", TextShape("Count different resources, not events.", ("resource",), meant="resource")),
        Key("upload", size("In place of when and count: bytes sent to allowed destinations within the window.")),
        Key("within", span("The window."), required=True),
        Key("severity", SEVERITY),
        Key("reason", REASON),
        Key(
            "respond",
            _some(
                "What answers it besides the event, the counter and the alert: record (nothing), cut-egress, freeze"
                " or kill: a lockdown, each with what stands before it.",
                TextShape("A response.", tuple(str(each) for each in Response), meant="a response"),
            ),
        ),
    ),
    name="a detector",
)

DETECT: Final = ListShape(
    "Detectors over the events of a session. Further layers add theirs; none takes one away.", _DETECTOR, longest=100
)
