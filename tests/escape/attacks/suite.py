"""All groups of attacks, in the order of the threat model."""

from __future__ import annotations

from tests.escape.attacks.agent import AGENT
from tests.escape.attacks.declared import Group
from tests.escape.attacks.network import NETWORK
from tests.escape.attacks.paths import PATHS

GROUPS: tuple[Group, ...] = (PATHS, NETWORK, AGENT)
