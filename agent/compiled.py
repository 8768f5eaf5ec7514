"""One file with the compiled code of all modules that the agent imports, where it was built (the image).

Python finds, opens and reads each module by itself, ten system calls a module; in gVisor that is most of a start. Here
it is one file, mapped once and shared by the agent's processes, and one call a module remains: whether the source is
still the one that was compiled. Rules kept here: what is not exactly that (time of change and length, the rule of
Python's own compiled files, PEP 552), and all of it for another Python, other optimisation or another place, is not
used, and Python finds the module as ever; where there is no file nothing is changed; imports nothing that takes time.
"""

from __future__ import annotations

import marshal
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import MAGIC_NUMBER, spec_from_file_location
from types import CodeType
from typing import NamedTuple

PACKAGE = os.path.dirname(__file__)  # noqa: PTH120  (imports nothing that takes time)
FILE = f"{PACKAGE}-compiled"
"""Beside the package: integrity watching has what lies there, and who can write there can write the modules."""
_LENGTH = 8


class _Module(NamedTuple):
    """One of them. `start`, `end`: where its code lies among all."""

    source: str
    package: bool
    changed: int  # seconds since the epoch
    size: int  # bytes
    start: int
    end: int


class _Finder:
    """On sys.meta_path, before Python's own for files."""

    def __init__(self, modules: dict[str, tuple[str, bool, int, int, int, int]], codes: memoryview) -> None:
        self._modules = modules
        self._codes = codes

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """As importlib.abc.MetaPathFinder."""
        found = self._modules.get(name)
        if found is None:
            return None
        module = _Module(*found)
        below = [os.path.dirname(module.source)] if module.package else None  # noqa: PTH120
        loader = _Loader(name, module, self._codes)
        return spec_from_file_location(name, module.source, loader=loader, submodule_search_locations=below)


class _Loader(SourceFileLoader):
    """Python's own loader, but for where the code comes from."""

    def __init__(self, name: str, module: _Module, codes: memoryview) -> None:
        super().__init__(name, module.source)
        self._module = module
        self._codes = codes

    def get_code(self, fullname: str) -> CodeType | None:
        """As Python's own, which is asked where the source has changed. Raises ImportError, OSError, SyntaxError."""
        module = self._module
        if not _unchanged(module):
            return super().get_code(fullname)
        code: CodeType = marshal.loads(self._codes[module.start : module.end])  # noqa: S302  (as far to be trusted as a .pyc)
        return code


def _unchanged(module: _Module) -> bool:
    try:
        now = os.stat(module.source)  # noqa: PTH116
    except OSError:
        return False
    return (int(now.st_mtime), now.st_size) == (module.changed, module.size)


def use(file: str = FILE, package: str = PACKAGE) -> bool:
    """Have the modules of `file` found there, from now on; False where there is none for this Python and `package`.
    Raises ValueError, EOFError, TypeError for one that is broken."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        import mmap

        # without a descriptor of its own, which Python before 3.13 keeps: the session may look at those in gVisor
        kept = {"trackfd": False} if sys.version_info >= (3, 13) else {}
        mapped = memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ, **kept))
    finally:
        os.close(descriptor)
    start = len(MAGIC_NUMBER) + _LENGTH
    if mapped[: len(MAGIC_NUMBER)] != MAGIC_NUMBER or sys.flags.optimize:
        return False
    end = start + int.from_bytes(mapped[len(MAGIC_NUMBER) : start], "big")
    place, modules = marshal.loads(mapped[start:end])  # noqa: S302
    if place != package:
        return False
    sys.meta_path.insert(sys.meta_path.index(PathFinder), _Finder(modules, mapped[end:]))
    return True


def gather(file: str = FILE, package: str = PACKAGE) -> int:
    """Write it, with every module of the package and what they import, all of which is imported for that; how many
    there are. Raises OSError, and what importing raises."""
    import importlib
    import pkgutil

    name = os.path.basename(package)  # noqa: PTH119
    for each in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
        if each.name != f"{name}.__main__":
            importlib.import_module(each.name)
    modules: dict[str, tuple[str, bool, int, int, int, int]] = {}
    codes = bytearray()
    for known, spec in [(known, getattr(module, "__spec__", None)) for known, module in sys.modules.items()]:
        if spec is None or spec.name != known or not isinstance(spec.loader, SourceFileLoader):
            continue
        source = os.stat(spec.loader.path)  # noqa: PTH116
        code = marshal.dumps(spec.loader.get_code(known))
        where = (len(codes), len(codes) + len(code))
        of_package = spec.submodule_search_locations is not None
        modules[known] = (spec.loader.path, of_package, int(source.st_mtime), source.st_size, *where)
        codes += code
    index = marshal.dumps((package, modules))
    with open(f"{file}.new", "wb") as new:
        new.write(MAGIC_NUMBER + len(index).to_bytes(_LENGTH, "big") + index + codes)
    os.replace(f"{file}.new", file)  # noqa: PTH105
    return len(modules)
