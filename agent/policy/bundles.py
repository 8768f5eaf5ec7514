"""Bundles of egress hosts as data: shipped ones are YAML text, those of tools come from the tools' configuration.

The loader asks a mapping for the bundles a policy uses, and for no others: whoever fills it
(`agent.daemon.policies.store`) may do I/O for each one that is asked for.
"""

from __future__ import annotations

from agent.policy.request import Protocol
from agent.values import dataclass


@dataclass(frozen=True, slots=True)
class ToolHost:
    """One host that a tool of the image is configured to fetch from. `host` as written there; `source` names the
    configuration for the reader (``pip: /etc/pip.conf``)."""

    host: str
    port: int
    protocol: Protocol
    source: str


@dataclass(frozen=True, slots=True)
class BundleFault:
    """A bundle that exists but cannot be had on this machine, and what would help."""

    message: str
    fix: str


type Bundle = str | tuple[ToolHost, ...] | BundleFault
