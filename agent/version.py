"""The agent's version, read from the installed distribution: pyproject.toml is its one home."""

from __future__ import annotations


def version() -> str:
    """The installed version, ``unknown`` where the package was never installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("parhelia-agent")
    except PackageNotFoundError:
        return "unknown"
