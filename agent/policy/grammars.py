"""The grammars of the programs that rules speak of: the base system's here, the rest by field.

Sources: rm(1), chmod(1), cp(1), ls(1), dd(1), find(1), apt-get(8), openssl(1), java(1), python(1) and their ``--help``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from agent.policy.grammar import GENERIC, Grammar, means, names, sub
from agent.policy.grammars_cloud import CLOUD
from agent.policy.grammars_containers import CONTAINERS
from agent.policy.grammars_data import DATABASES, PUBLISHING
from agent.policy.grammars_files import FILES
from agent.policy.grammars_git import GIT

_RM = sub(
    longs="force interactive one-file-system no-preserve-root preserve-root recursive dir verbose help version",
    recursive="r R recursive",
    force="f force",
    interactive="i I interactive",
    dir="d dir",
)
_TREE = sub(
    "from reference",
    "changes dereference no-dereference from no-preserve-root preserve-root silent quiet reference recursive verbose "
    "help version",
    recursive="R recursive",
    quiet="f silent quiet",
    verbose="v verbose",
)
_CP = sub("t target-directory S suffix", recursive="r R recursive a archive", force="f force")
_APT = sub("o option c config-file t target-release", yes="y yes assume-yes")
_LS = sub(recursive="R recursive", all="a A all")
_PYTHON = Grammar(names("c m W X Q check-hash-based-pycs"), first=True)

_BASE: Mapping[str, Grammar] = {
    "rm": _RM,
    "chmod": _TREE,
    "chown": _TREE,
    "chgrp": _TREE,
    "cp": _CP,
    "apt": _APT,
    "apt-get": _APT,
    "ls": _LS,
    "dd": Grammar(plain=True),
    "find": Grammar(single_dash=True),
    "openssl": Grammar(single_dash=True),
    "java": Grammar(single_dash=True),
    "python": _PYTHON,
    "python3": _PYTHON,
}

GRAMMARS: Mapping[str, Grammar] = MappingProxyType(
    {**_BASE, **FILES, **GIT, **CLOUD, **CONTAINERS, **DATABASES, **PUBLISHING}
)

__all__ = ["GENERIC", "GRAMMARS", "Grammar", "means"]
