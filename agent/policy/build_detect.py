"""The section `detect` from its records.

Rules kept here: a detector counts events or bytes, never both and never nothing; what could never be seen (tags of an
event that no command rule causes, a class of paths that does not exist) is a problem with its place and its fix.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from agent.policy.build import Bench, severity
from agent.policy.decision import Severity
from agent.policy.model import Layer
from agent.policy.model_detect import Detector, Outcome, Response, Sign
from agent.policy.path_classes import CLASSES, named_class
from agent.policy.shape import Record, Text, Value
from agent.policy.words import shown

_OF_COMMANDS: Final = "bash.dangerous"


def detectors(bench: Bench, values: Sequence[Value]) -> tuple[Detector, ...]:
    """The detectors of one layer, as far as they have no problems."""
    names: dict[str, Value] = {}
    found = []
    for value in values:
        if not isinstance(value, Record) or value.faulty:
            continue
        name = value.text("id")
        first = names.setdefault(name, value)
        if first is not value:
            message = f"the id '{name}' is given twice (first in {first.where})"
            bench.fault(value.place("id"), message, "choose another id")
        before = len(bench.problems)
        detector = _detector(bench, value)
        if len(bench.problems) == before:
            found.append(detector)
    return tuple(found)


def unseen(layers: Iterable[Layer]) -> Iterator[str]:
    """Warnings: detectors that look for a tag that no command rule of the policy has."""
    known = [*layers]
    tags = {tag for layer in known if layer.commands is not None for rule in layer.commands.deny for tag in rule.tags}
    for layer in known:
        for detector in layer.detect:
            for sign in detector.when:
                if sign.tags and tags.isdisjoint(sign.tags):
                    named = ", ".join(sign.tags)
                    yield f"{detector.where}: {detector.id} looks for the tag {named}, which no command rule here has"


def _detector(bench: Bench, record: Record) -> Detector:
    within, count, upload = (record.number(key) for key in ("within", "count", "upload"))
    when = tuple(_sign(bench, value) for value in record.items("when") if isinstance(value, Record))
    if upload is not None:
        for key in ("when", "count", "distinct"):
            if record.has(key):
                bench.fault(record.place(key), f"'{key}' beside 'upload'", "make two detectors of it")
    elif not when or count is None:
        bench.fault(record.where, "a detector of nothing", "give 'when' and 'count', or 'upload'")
    return Detector(
        id=record.text("id"),
        where=record.where,
        within=within or 0,
        when=when,
        count=count or 0,
        upload=upload or 0,
        distinct=record.has("distinct"),
        severity=severity(record, Severity.HIGH),
        reason=record.text("reason"),
        respond=tuple(dict.fromkeys(map(Response, record.words("respond")))) or (Response.RECORD,),
    )


def _sign(bench: Bench, record: Record) -> Sign:
    sign = Sign(
        events=tuple(dict.fromkeys(record.words("events"))),
        rules=record.words("rules"),
        tags=record.words("tags"),
        results=tuple(dict.fromkeys(map(Outcome, record.words("result")))),
        severity=severity(record, Severity.LOW) if record.has("severity") else None,
        resources=record.words("resources"),
    )
    if sign.tags and set(sign.events) - {_OF_COMMANDS}:
        message = f"tags are of command rules, whose only event is {_OF_COMMANDS}"
        bench.fault(record.place("tags"), message, f"write 'events: {_OF_COMMANDS}', and a sign of its own for others")
    for text in _classes(record):
        names = ", ".join(sorted(CLASSES))
        bench.fault(text.where, f"there is no class of paths '{shown(text.value)}'", f"the classes are: {names}")
    return sign


def _classes(record: Record) -> Iterator[Text]:
    """Resources that name a class which does not exist."""
    for text in record.texts("resources"):
        named = named_class(text.value)
        if named is not None and (named not in CLASSES or named != text.value):
            yield text
