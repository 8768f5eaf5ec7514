"""`policy explain paths`: what a session may write and read here, by which rule, and what holds its protected places on
this machine. It searches and probes as a real start does, and makes nothing.
"""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Iterator
from typing import Any

from agent.cli.questions import Surroundings
from agent.daemon.launch.decoying import place_decoys, sensitive_names, sight_of
from agent.daemon.launch.planning import PUBLIC
from agent.daemon.policies.demands import paths_observed, with_protection
from agent.daemon.protection.protecting import NO_MOUNTS, Protection, bounds_of, compile_protection, unheld
from agent.daemon.protection.searching import Bounds
from agent.policy.decide_paths import sections
from agent.policy.grants import DEVICES, Grants, path_grants
from agent.policy.model import PathRule, Policy
from agent.policy.paths import PROC, covers, outermost
from agent.policy.protection import Protected
from agent.policy.words import shown
from agent.session.levels import Offer, Point, path_walls, reached
from agent.session.plan import Hold
from agent.session.probe import probe

ALWAYS = "always"
NOT_HERE = "not to be had here"
ASKED = "only where the agent is asked: nothing of that name is there, and none is reserved"
_HOW = {Hold.READ_ONLY: "read-only", Hold.RESERVE: "reserved, read-only", Hold.PIN: "held in its place"}


def document(policy: Policy, around: Surroundings) -> dict[str, Any]:
    """Everything that is said, as JSON-able data."""
    offer = probe()
    grants = path_grants(policy, home=around.home, tmpdir=around.tmpdir)
    protected = Protected(policy, around.home)
    found = _protection(policy, protected, grants, around, offer)
    held = with_protection(reached(offer)[Point.PATHS], _weak(found, around, offer))
    return {
        "digest": policy.digest,
        "level": {"level": str(held.level), "why": held.why},
        "grants": [*_grants(policy, grants, around, offer)],
        "protect": [_pattern(rule, found, protected, around, offer) for rule in _rules(policy, "protect")],
        "places": [
            {"path": shown(path), "how": _HOW[how], "by": _holder(path, around, offer)} for path, how in found.held
        ],
        "watch": [_named(rule) for rule in _rules(policy, "watch")],
        "recorded": _recorded(policy, grants, around, offer),
        "unheld": list(_weak(found, around, offer)),
    }


def page(said: dict[str, Any]) -> list[str]:
    """The same for a reader."""
    lines = [f"policy {said['digest']}", "", f"paths: {said['level']['level']} ({said['level']['why']})"]
    lines += [
        "",
        "grants",
        *(_row(entry["access"], entry["path"], _origin(entry), entry["by"]) for entry in said["grants"]),
    ]
    lines += [
        "",
        "protected: never written",
        *(_row("", entry["pattern"], entry["rule"], entry["by"]) for entry in said["protect"]),
    ]
    held = [entry for entry in said["places"] if entry["how"] != _HOW[Hold.PIN]]
    pinned = len(said["places"]) - len(held)
    lines += ["", f"what holds them here ({pinned} directories above them are held in their places)"]
    lines += [_row("", entry["path"], entry["how"], entry["by"]) for entry in held]
    lines += [
        "",
        "watched: changes are recorded",
        *(_row("", entry["pattern"], entry["rule"], "") for entry in said["watch"]),
    ]
    if said["recorded"]:
        lines += ["", "recorded where it is denied, whoever asks"]
        lines += [_row("", access, text) for access, text in said["recorded"].items()]
    lines += ["", "held by nothing here", *(f"  {text}" for text in said["unheld"])] if said["unheld"] else []
    return lines


def text(said: dict[str, Any]) -> str:
    """As one JSON document."""
    return json.dumps(said, indent=2, ensure_ascii=True)


def _row(*cells: str) -> str:
    return "  " + "  ".join(cell for cell in cells if cell)


def _origin(entry: dict[str, Any]) -> str:
    return ", ".join(
        f"{origin['rule']} ({origin['where']})" if origin["where"] else origin["rule"] for origin in entry["origin"]
    )


def _protection(policy: Policy, protected: Protected, grants: Grants, around: Surroundings, offer: Offer) -> Protection:
    if not protected or paths_observed(policy):
        return Protection()
    roots = outermost(os.path.realpath(root) for root in grants.write)
    return compile_protection(protected, roots, os.path.realpath(around.workdir), _bounds())


def _account() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam("session")
    except KeyError:
        return None


def _bounds() -> Bounds:
    account = _account()
    return Bounds() if account is None else bounds_of(account.pw_uid, account.pw_gid)


def _weak(found: Protection, around: Surroundings, offer: Offer) -> tuple[str, ...]:
    if offer.mounts:
        return found.weak
    left = [entry for entry in found.held if not (offer.root and covers(around.home, entry[0]))]
    return unheld(Protection(held=tuple(left), weak=found.weak), NO_MOUNTS).weak


def _holder(path: str, around: Surroundings, offer: Offer) -> str:
    if offer.mounts:
        return "mount"
    return "ownership" if offer.root and covers(around.home, path) else "nothing"


def _grants(policy: Policy, grants: Grants, around: Surroundings, offer: Offer) -> Iterator[dict[str, Any]]:
    by = ", ".join(path_walls(offer)) or "file permissions"
    for access, roots in (("write", grants.write), ("read", grants.read)):
        for root in roots:
            yield {"access": access, "path": root, "origin": _origins(policy, root, access, around), "by": by}
    for device in DEVICES:
        yield {"access": "device", "path": device, "origin": [{"rule": ALWAYS, "where": None}], "by": by}
    for place in grants.agent_files:
        yield {
            "access": "hidden",
            "path": place,
            "origin": [{"rule": "agent-files", "where": None}],
            "by": "mounts" if offer.mounts else f"{by}, never granted",
        }


def _origins(policy: Policy, root: str, access: str, around: Surroundings) -> list[dict[str, Any]]:
    """The rules that give it, one or more in each layer."""
    found = []
    for _, section in sections(policy):
        rules = section.write if access == "write" else (*section.read, *section.write)
        found += [{"rule": rule.id, "where": str(rule.where)} for rule in rules if covers(rule.path, root)]
    always = root in (around.home, around.tmpdir, PROC)
    return [*found, *([{"rule": ALWAYS, "where": None}] if always or not found else [])]


def _recorded(policy: Policy, grants: Grants, around: Surroundings, offer: Offer) -> dict[str, str]:
    """What `paths.audit` asks for, and by which mechanism it is to be had here."""
    found = {}
    if policy.audits_writes:
        found["writes"] = "seccomp user notification" if offer.notify else NOT_HERE
    if policy.audits_reads and offer.reads:
        account = _account()
        uid, gid = (None, None) if account is None or os.geteuid() != 0 else (account.pw_uid, account.pw_gid)
        sight = sight_of((*grants.read, *grants.write, *DEVICES, PUBLIC), (), uid, gid)
        places = [shown(path) for path, _ in place_decoys(sensitive_names(policy, grants.write, around.home), sight)]
        found["reads"] = f"fanotify, of sensitive files in {', '.join(places)}; of the agent's own"
    elif policy.audits_reads:
        found["reads"] = NOT_HERE
    return found


def _rules(policy: Policy, key: str) -> list[PathRule]:
    return [
        rule for _, section in sections(policy) for rule in (section.protect if key == "protect" else section.watch)
    ]


def _named(rule: PathRule) -> dict[str, Any]:
    return {"pattern": rule.path, "rule": rule.id, "where": str(rule.where), "reason": rule.reason}


def _pattern(
    rule: PathRule, found: Protection, protected: Protected, around: Surroundings, offer: Offer
) -> dict[str, Any]:
    reserved = {name.path: name.rule for name in found.reserved}
    places = [path for path, how in found.held if how is not Hold.PIN]
    mine = [path for path in places if (reserved.get(path) or protected.rule_of(path)) is rule]
    by = sorted({_holder(path, around, offer) for path in mine})
    count = f" ({len(mine)} {'place' if len(mine) == 1 else 'places'})" if mine else ""
    return {
        **_named(rule),
        "by": f"{', '.join(by)}{count}" if mine else ASKED,
        "places": [shown(path) for path in mine],
    }
