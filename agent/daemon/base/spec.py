"""What a run was asked to do, as one value that travels from the command line to keeper, guard and launcher.

It is handed over in a memory file or over a channel, never in argv or the environment: it holds what the session must
not see (the gateway's address may carry credentials).
"""

from __future__ import annotations

import json
import time
from typing import Any, Final

from agent.values import asdict, dataclass, field

RUN_ROOT: Final = "/run/parhelia"
POLICIES: Final = "/etc/parhelia/policies"
AUDIT_ROOT: Final = "/vol/parhelia/audit"
WORKDIR: Final = "/vol/parhelia/workspaces"
"""Where a run's things are, and where it starts, when nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class User:
    """An account, resolved once by the command line (the agent never edits passwd)."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


@dataclass(frozen=True, slots=True)
class RunSpec:
    """Everything `run` needs to know. Paths are absolute; `run_dir` and `audit_dir` are this session's own. `began`:
    seconds since the epoch, for people."""

    command: tuple[str, ...]
    policy_dirs: tuple[str, ...]
    audit_dir: str
    run_root: str
    run_dir: str
    workdir: str | None
    require_contained: bool
    session_id: str
    boot: str
    env_label: str
    pushgateway_url: str | None
    session_user: User
    egress_user: User | None
    session_env: dict[str, str] = field(default_factory=dict)
    caller_env: dict[str, str] = field(default_factory=dict)
    system_ca: str | None = None
    verbose: bool = False
    version: str = "unknown"
    began: float = field(default_factory=time.time)

    @property
    def actor(self) -> str:
        """The audit log's actor for what the session does."""
        return f"session:{self.session_id}"

    def dump(self) -> dict[str, Any]:
        """As JSON-able data."""
        return asdict(self)

    @staticmethod
    def parse(data: dict[str, Any]) -> RunSpec:
        """The inverse of `dump`. Raises TypeError where keys are missing or unknown."""
        user, egress = data.pop("session_user"), data.pop("egress_user")
        data["command"] = tuple(data["command"])
        data["policy_dirs"] = tuple(data["policy_dirs"])
        return RunSpec(session_user=User(**user), egress_user=None if egress is None else User(**egress), **data)

    def to_bytes(self) -> bytes:
        return json.dumps(self.dump()).encode()

    @staticmethod
    def from_bytes(raw: bytes) -> RunSpec:
        return RunSpec.parse(json.loads(raw))
