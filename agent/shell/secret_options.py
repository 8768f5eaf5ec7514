"""Options and operands whose value is a password by the program that they are given to (``mysql -pSECRET``).

Rules: what stands there is hidden whatever it looks like, a reference such as ``$TOKEN`` apart; an option that means
something else to another program is left alone there. Sources: the programs' manual pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from agent.expressions import expression


class _Secrets(NamedTuple):
    """`attached`: options whose secret is the rest of their word. `following`: words before a secret. `pairs`: options
    with ``user:secret`` (or what `between` says). `needs`: only behind this word."""

    attached: tuple[str, ...] = ()
    following: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()
    between: str = ":"
    needs: str = ""


_MYSQL = _Secrets(attached=("-p",))
_LOGIN = _Secrets(following=("-p",), attached=("-p",), needs="login")
_LDAP = _Secrets(following=("-w",), attached=("-w",))
_ZIP = _Secrets(following=("-P",), attached=("-P",))
_SEVEN = _Secrets(attached=("-p",))
_MONGO = _Secrets(following=("-p",))
_SQL = _Secrets(following=("-P",), attached=("-P",))
_PASS = ("-k", "-K", "-pass", "-passin", "-passout", "-key")
_CURL = ("-u", "--user", "-U", "--proxy-user", "--oauth2-bearer")
_WGET = ("--http-password", "--ftp-password", "--proxy-password")

_PROGRAMS: Mapping[str, _Secrets] = MappingProxyType(
    {
        **dict.fromkeys(("mysql", "mysqldump", "mysqladmin", "mysqlimport", "mysqlshow", "mysqlcheck"), _MYSQL),
        **dict.fromkeys(("mariadb", "mariadb-dump", "mariadb-admin"), _MYSQL),
        **dict.fromkeys(("docker", "podman", "nerdctl", "buildah", "skopeo", "helm", "oras", "az", "oc"), _LOGIN),
        **dict.fromkeys(("ldapsearch", "ldapadd", "ldapmodify", "ldapdelete", "ldappasswd", "ldapwhoami"), _LDAP),
        **dict.fromkeys(("zip", "unzip"), _ZIP),
        **dict.fromkeys(("7z", "7za", "7zr"), _SEVEN),
        **dict.fromkeys(("mongo", "mongosh", "mongodump", "mongorestore"), _MONGO),
        **dict.fromkeys(("sqlcmd", "bcp", "isql"), _SQL),
        "sshpass": _Secrets(following=("-p",), attached=("-p",)),
        "redis-cli": _Secrets(following=("-a", "--pass")),
        "openssl": _Secrets(following=_PASS),
        "smbclient": _Secrets(pairs=("-U", "--user"), between="%"),
        "aws": _Secrets(following=("aws_secret_access_key", "aws_session_token"), needs="configure"),
        "vault": _Secrets(following=("login",)),
        "curl": _Secrets(following=("-b", "--cookie"), pairs=_CURL),
        "wget": _Secrets(following=_WGET),
    }
)
NAMES = expression(rf"(?<![\w-])(?:{'|'.join(sorted(map(re.escape, _PROGRAMS), key=len, reverse=True))})(?![\w-])")
"""Some program of the table, in text."""


def hidden(words: Sequence[str], mark: str) -> Iterator[tuple[int, str]]:
    """The positions of words that hold a secret by their place, and those words with `mark` in the secret's stead."""
    secrets, ready, before = _Secrets(), False, ""
    for index, word in enumerate(words):
        named = _PROGRAMS.get(word.rpartition("/")[2])
        if named is not None and not word.startswith("-"):
            secrets, ready, before = named, not named.needs, word
            continue
        ready = ready or word == secrets.needs
        found = _hidden_word(word, before, secrets, mark) if ready else None
        if found is not None:
            yield index, found
        before = word


def _hidden_word(word: str, before: str, secrets: _Secrets, mark: str) -> str | None:
    if before in secrets.following and not word.startswith(("-", "$", "@")) and word:
        kind, colon, _ = word.partition(":")
        return f"{kind}:{mark}" if colon and kind in ("pass", "file", "env") else mark
    if before in secrets.pairs:
        user, colon, value = word.partition(secrets.between)
        return f"{user}{colon}{mark}" if value and not value.startswith("$") else None
    for option in secrets.pairs:
        given = word.removeprefix(option).removeprefix("=") if word.startswith(option) else ""
        user, colon, value = given.partition(secrets.between)
        if value and not value.startswith("$"):
            return f"{word[: len(word) - len(given)]}{user}{colon}{mark}"
    for option in secrets.attached:
        if word.startswith(option) and len(word) > len(option) and not word[len(option) :].startswith("$"):
            return f"{option}{mark}"
    return None
