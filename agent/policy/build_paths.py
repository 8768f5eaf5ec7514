"""Path rules from values: absolute, normalised trees; and the grants that no mechanism could ever enforce refused."""

from __future__ import annotations

from collections.abc import Iterable

from agent.expressions import expression
from agent.policy.build import Bench, examples, subject, wording
from agent.policy.globs import ANY_DEPTH
from agent.policy.model import Audited, PathRule
from agent.policy.paths import AGENT_FILES, HOOK_SETTINGS, IN_HOME, PROC, covered, covers, is_normal
from agent.policy.schema import NOT_AUDITED
from agent.policy.shape import Items, Text, Value

_OF_A_PROCESS = expression(r"/proc/(self|thread-self|[0-9]+)(/|$)")


def grant(bench: Bench, value: Value, rule_id: str, *, write: bool) -> PathRule | None:
    """One entry of `paths.write` or `paths.read`, None where it has a problem."""
    text = subject(value, "path")
    if text is None:
        return None
    fault = _grant_fault(text.value, write=write)
    if fault is not None:
        bench.fault(text.where, *fault)
        return None
    return _rule(value, rule_id, text.value)


def protection(bench: Bench, value: Value, rule_id: str) -> PathRule | None:
    """One entry of `paths.protect` or `paths.watch`, None where it has a problem."""
    text = subject(value, "path")
    if text is None:
        return None
    fault = _protection_fault(text)
    if fault is not None:
        bench.fault(text.where, *fault)
        return None
    return _rule(value, rule_id, text.value)


def sensitive(bench: Bench, value: Value, rule_id: str) -> PathRule | None:
    """One entry of `paths.sensitive`, None where it has a problem."""
    text = subject(value, "path")
    if text is None:
        return None
    fault = _tree_fault(text.value, "what is sensitive")
    if fault is None and text.value == "/":
        fault = "'/' would be every file", "name the directory"
    if fault is not None:
        bench.fault(text.where, *fault)
        return None
    return _rule(value, rule_id, text.value)


def audited(bench: Bench, values: Iterable[Value | None]) -> frozenset[Audited]:
    """What the files of a layer say of `paths.audit`; two may both say it, but not differently."""
    given = [value for value in values if isinstance(value, Items)]
    wanted = [frozenset(text.value for text in items.values if isinstance(text, Text)) for items in given]
    for items, words in zip(given, wanted, strict=True):
        if words != wanted[0]:
            message = f"'audit' contradicts {given[0].where} ({', '.join(sorted(wanted[0]))})"
            bench.fault(items.where, message, "give it once for the directory")
        elif NOT_AUDITED in words and len(words) > 1:
            bench.fault(items.where, f"'{NOT_AUDITED}' beside what is to be audited", f"remove '{NOT_AUDITED}'")
    return frozenset(Audited(word) for word in wanted[0] - {NOT_AUDITED}) if wanted else frozenset()


def _rule(value: Value, rule_id: str, path: str) -> PathRule:
    reason, instead = wording(value)
    return PathRule(id=rule_id, path=path, where=value.where, reason=reason, instead=instead, examples=examples(value))


def _tree_fault(path: str, what: str) -> tuple[str, str] | None:
    """Why `path` names no tree; `what` it was to be."""
    if path.startswith("~"):
        return f"'{path}': {what} is an absolute path", "the session's own HOME and TMPDIR are always granted"
    if not path.startswith("/"):
        return f"'{path}' is not absolute", f"write '/{path}' or the whole path"
    if any(character in path for character in "*?["):
        return f"'{path}': {what} is a tree, not a glob; no mechanism could enforce it", "name the directory"
    if not is_normal(path):
        return f"'{path}' can never match: it is not normalised", "remove '.', '..', '//' and a trailing '/'"
    return None


def _grant_fault(path: str, *, write: bool) -> tuple[str, str] | None:
    fault = _tree_fault(path, "a grant")
    if fault is not None:
        return fault
    if _OF_A_PROCESS.match(path):
        return f"'{path}' would be bound to one process", f"remove it: {PROC} is always granted"
    if any(covers(place, path) for place in AGENT_FILES):
        return f"'{path}' is the agent's own and never granted", "remove it"
    if write and (covered(HOOK_SETTINGS, path) or covers(PROC, path)):
        return f"'{path}' is never writable", "remove it"
    return None


def _protection_fault(text: Text) -> tuple[str, str] | None:
    path = text.value
    pieces = path.removeprefix(IN_HOME).removeprefix("/").split("/")
    if path.startswith("~") and not path.startswith(IN_HOME):
        return f"'{path}': '~' stands for the session's own home only, as '~/NAME'", "write '~/' and what is below"
    if "" in pieces or {".", ".."} & set(pieces):
        return f"'{path}' can never match: it is not normalised", "remove '.', '..', '//' and a trailing '/'"
    if any(ANY_DEPTH in piece and piece != ANY_DEPTH for piece in pieces):
        return f"'{path}' can never match: '**' stands for whole segments", "write '*' inside a name"
    if "?" in path or "[" in path:
        return f"'{path}': only '*' and '**' are wildcards here", "use '*', or list the names"
    if all(piece == ANY_DEPTH or set(piece) == {"*"} for piece in pieces):
        return f"'{path}' would be every file", "leave the write grants away instead"
    return None
