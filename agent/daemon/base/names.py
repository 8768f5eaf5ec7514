"""Where a run's things lie on the machine: names that follow from its specification alone, for both ends of a session.

Rules kept here: standard library only, and nothing is looked at or made. Whoever is left at the end of a run can name
what is to be taken away, and an operator's client finds the control socket.
"""

from __future__ import annotations

from pathlib import Path

from agent.daemon.base.spec import RunSpec

CANARY_HOMES = ("/var/tmp", "/dev/shm", "/srv", "/var", "/run")  # noqa: S108  (one world-readable file, not a secret)


def own_directory(spec: RunSpec) -> Path:
    """What is made for the session: its TMPDIR, and its home where it has none. It is the agent's, so that no process
    of the session's account can put anything in the place of these."""
    return Path("/tmp", f"session-{spec.session_id}-{spec.boot}")  # noqa: S108  (made fresh, ours)


def group_name(boot: str) -> str:
    """A run's control groups."""
    return f"parhelia-{boot}"


def canaries(spec: RunSpec) -> list[Path]:
    """Where this run's canary may lie; see `agent.daemon.base.places.set_canary`."""
    return [Path(home, f".parhelia-canary-{spec.boot}") for home in CANARY_HOMES]


def hook_link(spec: RunSpec) -> Path:
    """The hook client's compiled-in path, where the session has no mount namespace."""
    return Path(spec.run_root, "hook.sock")


def control_directory(run_dir: str) -> Path:
    """Where the control socket of a run lies: a directory of its own, which the session's mount namespace covers."""
    return Path(run_dir, "control")


def control_socket(run_dir: str) -> Path:
    """The control socket of a run."""
    return control_directory(run_dir) / "control.sock"


def control_link(run_root: str) -> Path:
    """Leads to the socket of the first session that is running below `run_root`."""
    return Path(run_root, "control.sock")
