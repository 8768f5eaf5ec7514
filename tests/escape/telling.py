"""What a test tells a session that runs: names of files that appear where the session can see them.

So neither waits for a time: the session goes on when the test has seen in the log what it waits for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import open_way
from tests.escape.containers import SHARED, Container
from tests.escape.runtime import Host, Runtime


class Telling:
    """To the sessions of one runtime. `place`: where they see it, below `directory` where given, which then is one that
    all may reach; `granted`: a policy by which they may."""

    def __init__(self, runtime: Runtime, directory: Path | None = None) -> None:
        assert isinstance(runtime, Host | Container)
        self._directory = (directory or runtime.directory) / "told"
        self._directory.mkdir(exist_ok=True)
        self._directory.chmod(0o755)
        if isinstance(runtime, Host):
            open_way(self._directory)
        self.place = f"{SHARED}/told" if isinstance(runtime, Container) else str(self._directory)

    def granted(self, text: str) -> str:
        covered = self.place.startswith("/tmp/") and "write: [/tmp]" in text
        return text if covered else text.replace("/opt]", f"/opt, {self.place}]")

    def waits(self, name: str, meanwhile: str = ":") -> str:
        """What a shell of the session does until it is told `name`, `meanwhile` again and again."""
        return f"until [ -e {self.place}/{name} ]; do {meanwhile}; sleep 0.2; done"

    def tell(self, *names: str) -> None:
        for name in names:
            (self._directory / name).touch()


@contextmanager
def beside(work: Callable[[], None], telling: Telling, *last: str) -> Iterator[None]:
    """Do the work in a thread while the block runs; whatever becomes of it, `last` is told at its end."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)
        finally:
            telling.tell(*last)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        assert not failures, failures
