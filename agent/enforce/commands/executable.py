"""May the session execute this file? What the exec ring asks the path guard, besides what the command does.

Rules kept here: the file is the one that will really run, by its own path; what has no path any more (a deleted file, a
memory file) is left to the kernel. What the session may not even look at is asked about by where its path leads, if
there is a file that its account could execute but for the grants: a search along PATH that meets nothing is no attempt.
What the agent puts in its public directory for the session (the hook client, the shells' shim) is the session's to
execute, though the directory is the agent's.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime

from agent.enforce.commands.program import File, Run
from agent.enforce.walk import Closed
from agent.policy.request import Access, Origin, PathRequest
from agent.values import dataclass

_DELETED = " (deleted)"


@dataclass(frozen=True, slots=True)
class Executables:
    """Of one session; `home` and `tmpdir` are its own directories. `public`: where the agent's public directory is."""

    home: str
    tmpdir: str
    public: tuple[str, ...] = ()

    def request(self, run: Run, origin: Origin) -> PathRequest | None:
        """The question about one program of an exec, None where its file has no path."""
        path = run.file.path
        if not path.startswith("/") or path.endswith(_DELETED) or path.rpartition("/")[0] in self.public:
            return None
        today = datetime.now(UTC).date()
        return PathRequest(Access.EXECUTE, path, today, origin, run.asked, home=self.home, tmpdir=self.tmpdir)


def out_of_sight(closed: Closed) -> File | None:
    """What the agent sees there, if the calling thread's file-system identity could execute it; else None."""
    path = closed.place
    there = os.access(path, os.X_OK, effective_ids=True) and os.path.isfile(path)  # noqa: PTH113
    return File(path, 0, 0) if there else None
