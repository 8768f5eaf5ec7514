"""A plan survives its journey to the launcher."""

from __future__ import annotations

import json

import pytest

from agent.session.plan import Hold, Plan, Proofs

PLAN = Plan(
    argv=("sh", "-c", "id"), env={"A": "b"}, workdir="/tmp", uid=1, gid=2, jail="root", doors=("proxy", "capture"),
    capture="every-port", mounts=True, pids="root", processes=None,
    hide=("/a",), sockets=("/s",), empty_run=True, hold=(("/p", Hold.PIN), ("/p/q", Hold.RESERVE)), empty_file="/e",
    bind=(("/b", "/c"),), landlock=True, read=("/usr",), write=("/tmp",),
    devices=("/dev/null",),
    connect_ports=(3128,), seccomp=True, notify_exec=True, trace_exec=None, notify_connect=False, notify_writes=False,
    proxy_port=3128,
    proofs=Proofs(
        dial=(("tcp", "127.0.0.1", 1),), token="t", ungranted=("/x",), private=("/y",), signal=(3,), protected=("/p/q",)
    ),
)  # fmt: skip


def test_a_plan_comes_back_equal_from_json() -> None:
    assert Plan.parse(json.loads(json.dumps(PLAN.dump()))) == PLAN


def test_an_unknown_or_missing_key_is_an_error_and_not_a_default() -> None:
    for change in (lambda d: d.update(extra=1), lambda d: d.pop("landlock")):
        data = json.loads(json.dumps(PLAN.dump()))
        change(data)
        with pytest.raises((TypeError, KeyError)):
            Plan.parse(data)
