"""Policies and requests for the tests of this directory, written as a user writes them."""

from __future__ import annotations

from datetime import date
from textwrap import dedent

from agent.policy.hosts import normalise_host
from agent.policy.load import LayerSource, PolicyError, load_policy
from agent.policy.model import Policy
from agent.policy.request import Access, CommandRequest, EgressRequest, Origin, PathRequest, Protocol, Stage
from agent.policy.targets import parse_target
from agent.shell.requests import from_text

TODAY = date(2026, 11, 22)
ORIGIN = Origin(mechanism="test")
HOME = "/home/session"
CWD = "/vol/parhelia/workspaces/project"


def layer(*texts: str, name: str = "layer") -> LayerSource:
    """One directory with the files a.yaml, b.yaml, …"""
    files = tuple((f"{name}/{chr(97 + index)}.yaml", dedent(text)) for index, text in enumerate(texts))
    return LayerSource(name, files)


def policy(*layers: str | LayerSource) -> Policy:
    """The effective policy; a text is a layer of one file."""
    sources = [
        entry if isinstance(entry, LayerSource) else layer(entry, name=f"l{i}") for i, entry in enumerate(layers)
    ]
    return load_policy(sources, read_command=command)


def problems(*texts: str) -> list[str]:
    """The problems of one layer, as shown."""
    try:
        load_policy([layer(*texts, name="p")], read_command=command)
    except PolicyError as error:
        return [str(problem) for problem in error.problems]
    return []


def command(text: str, *, supervised: bool = False, today: date = TODAY) -> CommandRequest:
    return from_text(text, cwd=CWD, home=HOME, today=today, origin=ORIGIN, supervised=supervised)


def url(
    text: str,
    *addresses: str,
    stage: Stage = Stage.REQUEST,
    today: date = TODAY,
    headers: tuple[tuple[str, str], ...] = (),
) -> EgressRequest:
    """A request for a URL (GET where it names no method)."""
    target = parse_target(text)
    return EgressRequest(
        host=target.host,
        port=target.port,
        protocol=target.protocol,
        method=target.method or "GET",
        path=target.path,
        query=target.query,
        headers=headers,
        addresses=addresses,
        stage=stage,
        today=today,
        origin=ORIGIN,
    )


def connect(
    host: str, port: int = 443, *addresses: str, protocol: Protocol = Protocol.TLS, stage: Stage = Stage.CONNECT
) -> EgressRequest:
    """A connection; to a public address where none is given."""
    resolved = addresses or (("93.184.215.14",) if stage is Stage.CONNECT else ())
    return EgressRequest(
        host=normalise_host(host),
        port=port,
        protocol=protocol,
        addresses=resolved,
        stage=stage,
        today=TODAY,
        origin=ORIGIN,
    )


def path(access: Access | str, place: str, *, home: str = HOME, tmpdir: str = "/tmp/session-1") -> PathRequest:
    return PathRequest(
        access=Access(access), path=place, today=TODAY, origin=ORIGIN, asked=place, home=home, tmpdir=tmpdir
    )
