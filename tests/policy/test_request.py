"""Requests as values."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import date

from agent.policy.request import CommandRequest, Origin, SimpleCommand, Understood


def test_nothing_of_a_request_is_lost_where_another_asks() -> None:
    asked = CommandRequest(
        text="ls x",
        commands=(SimpleCommand("ls", ("ls", "x")),),
        today=date(2026, 1, 2),
        origin=Origin("hook"),
        unverifiable="why",
        supervised=True,
        cwd="/w",
        home="/home/s",
        understood=(Understood(0, "command", "ls x", 0),),
        caller="make",
        certain=True,
    )
    plain = CommandRequest("", (), date(2026, 1, 1), Origin("exec"))
    assert all(getattr(asked, field.name) != getattr(plain, field.name) for field in fields(asked))
    origin = Origin("exec", pid=7)
    assert asked.made_by(origin, "git") == replace(asked, origin=origin, caller="git")
