"""git: the places where it runs another program, and the aliases that stand for other commands of its own.

Rules: a setting counts wherever it is made (``-c``, ``--config-env``, ``git config``, ``clone --config``, and the
``GIT_CONFIG_*`` variables, which `agent.shell.environment` turns into ``-c``), because what is set now is run later;
operands that are data (messages, patterns) are not looked into. Sources: git(1), git-config(1), and the pages of the
subcommands; gitremote-helpers(7) for ``ext::``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from agent.expressions import expression
from agent.policy.request import UNKNOWN
from agent.shell.carriers import Table, carried_steps
from agent.shell.pieces import Word
from agent.shell.steps import Inner, Opaque, ShellText, Step, joined, split_plain, word_at

_TABLE = Table(r"""
rebase:
    valued sXCS --onto --strategy --strategy-option
    -x --exec    text
filter-branch:
    --setup --env-filter --tree-filter --index-filter --parent-filter --msg-filter --commit-filter    text
    --tag-name-filter    text
difftool mergetool:
    -x --extcmd    text
clone:
    valued bojcC --config --branch --depth --origin --reference --template
    -u --upload-pack    text
    operand    says:ext    ext::
fetch pull ls-remote fetch-pack:
    valued joX
    -u --upload-pack --exec    text
    operand    says:ext    ext::
push send-pack:
    valued o
    --receive-pack --exec    text
    operand    says:ext    ext::
remote submodule remote-ext:
    operand    says:ext    ext::
archive:
    valued o
    --exec    text
    -o --output    writes
grep:
    valued eABCfm
    -O --open-files-in-pager    words
    -f    reads
log diff show format-patch:
    --output    writes
commit tag notes:
    valued mCct
    -F --file    reads
send-email:
    --smtp-server --sendmail-cmd --to-cmd --cc-cmd --header-cmd    text
instaweb:
    valued pm
    -b --browser -d --httpd    text
daemon:
    --access-hook    text
shell:
    -c    text
help web--browse:
    -b --browser    text
""")

_COMMAND_KEYS = expression(
    r"core\.(?:pager|editor|sshcommand|askpass|fsmonitor|gitproxy|alternaterefscommand)|sequence\.editor"
    r"|diff\.external|diff\..+\.(?:command|textconv)|merge\..+\.driver|(?:diff|merge)tool\..+\.cmd"
    r"|filter\..+\.(?:clean|smudge|process)|credential\.(?:.+\.)?helper|gpg\.(?:.+\.)?program|pager\..+"
    r"|(?:browser|man)\..+\.(?:cmd|path)|sendemail\.(?:.+\.)?(?:smtpserver|sendmailcmd|tocmd|cccmd|headercmd)"
    r"|uploadpack\.packobjectshook|remote\..+\.(?:uploadpack|receivepack)|trailer\..+\.(?:command|cmd)"
    r"|interactive\.difffilter|instaweb\.(?:browser|httpd)|submodule\..+\.update|imap\.tunnel|hook\..+\.command"
    r"|http\.(?:.+\.)?sslengine|gc\.recentobjectshook|web\.browser|guitool\..+\.cmd|tar\..+\.command",
    re.IGNORECASE,
)
_SWITCHES = frozenset(("", "true", "false", "yes", "no", "on", "off", "0", "1", "cat", "auto", "always", "never"))
_HELPERS = frozenset(("store", "cache", "osxkeychain", "manager", "manager-core", "libsecret", "wincred"))
_GLOBAL_VALUED = frozenset(("-C", "-c", "--config-env", "--git-dir", "--work-tree", "--namespace", "--super-prefix"))
_MODES = frozenset(("get", "list", "unset", "remove-section", "rename-section", "edit"))


def git_steps(words: Sequence[Word]) -> list[Step]:
    """What `words` (``git …``) run besides git itself."""
    index, settings = _globals(words)
    found: list[Step] = [step for key, value in settings for step in _setting(key, value)]
    if any(word.text.startswith("--exec-path=") for word in words[1:index]):
        found.append(Opaque("--exec-path puts other programs in the place of git's own"))
    if index >= len(words):
        return found
    alias = next((value for key, value in settings if key.lower() == f"alias.{words[index].text.lower()}"), None)
    if alias is not None:
        return found + _alias(alias, words[:index], words[index + 1 :])
    return found + _subcommand(words[index].text, words[index:])


def _globals(words: Sequence[Word]) -> tuple[int, list[tuple[str, Word]]]:
    """Where the subcommand stands, and the settings made before it."""
    settings: list[tuple[str, Word]] = []
    index = 1
    while index < len(words) and words[index].text.startswith("-"):
        text = words[index].text
        if text == "-c":
            settings.append(_pair(word_at(words, index + 1)))
        elif text.startswith("--config-env"):
            pair = words[index]._replace(text=text.partition("=")[2]) if "=" in text else word_at(words, index + 1)
            settings.append((_pair(pair)[0], Word(UNKNOWN)))
        index += 2 if text in _GLOBAL_VALUED else 1
    return index, settings


def _pair(word: Word) -> tuple[str, Word]:
    key, equals, value = word.text.partition("=")
    return key, word._replace(text=value if equals else "true")


def _setting(key: str, value: Word) -> Iterator[Step]:
    """What the setting `key` makes git run."""
    if key == UNKNOWN:
        yield Opaque("a setting of git that is not known before it runs")
    if _COMMAND_KEYS.fullmatch(key) is None or value.text in _SWITCHES:
        return
    text = value.text.removeprefix("!")
    if "helper" in key.lower() and text.split()[:1] and text.split()[0] in _HELPERS:
        return
    yield ShellText(value._replace(text=text))


def _alias(value: Word, git: Sequence[Word], rest: Sequence[Word]) -> list[Step]:
    """git-config(1), ``alias.*``: ``!`` begins shell text to which the arguments are added, else words of git."""
    if value.text.startswith("!"):
        return [ShellText(joined([value._replace(text=value.text[1:]), *rest]))]
    return [Inner((*git, *split_plain(value), *rest))]


def _subcommand(name: str, words: Sequence[Word]) -> list[Step]:
    special = _SPECIAL.get(name)
    found = special(words) if special is not None else []
    row = _TABLE.get(name)
    return found + carried_steps(words, None, row) if row is not None else found


def _config(words: Sequence[Word]) -> list[Step]:
    """``git config [set] KEY VALUE``: what is set is run later."""
    operands = [word for word in words[1:] if not word.text.startswith("-")]
    modes = {word.text.lstrip("-").removesuffix("-all").removesuffix("-regexp") for word in words[1:]}
    if modes & _MODES or not operands:
        return []
    if operands[0].text in ("set", "add"):
        operands = operands[1:]
    settings = [(operands[i].text, operands[i + 1]) for i in range(min(2, len(operands) - 1))]
    found = [step for key, value in settings for step in _setting(key, value)]
    aliases = [value for key, value in settings if key.lower().startswith("alias.")]
    return found + [step for value in aliases for step in _alias(value, (Word("git"),), ())]


def _submodule(words: Sequence[Word]) -> list[Step]:
    """``git submodule foreach [--recursive] TEXT``."""
    for index, word in enumerate(words):
        if word.text == "foreach":
            rest = [w for w in words[index + 1 :] if w.text not in ("--recursive", "--quiet", "-q", "--")]
            return [ShellText(joined(rest))] if rest else []
    return []


def _bisect(words: Sequence[Word]) -> list[Step]:
    return [Inner(tuple(words[2:]))] if word_at(words, 1).text == "run" and len(words) > len(("bisect", "run")) else []


def _clone(words: Sequence[Word]) -> list[Step]:
    """``clone -c KEY=VALUE``, ``--config=KEY=VALUE``, ``--config KEY=VALUE``."""
    found: list[Step] = []
    for index, word in enumerate(words):
        if word.text in ("-c", "--config"):
            found += _setting(*_pair(word_at(words, index + 1)))
        elif word.text.startswith("--config="):
            found += _setting(*_pair(word._replace(text=word.text.removeprefix("--config="))))
    return found


def _remote_ext(words: Sequence[Word]) -> list[Step]:
    return [Inner(tuple(split_plain(words[2])))] if len(words) > len(("remote-ext", "name")) else []


def _for_each_repo(words: Sequence[Word]) -> list[Step]:
    index = 1
    while index < len(words) and words[index].text.startswith("--"):
        index += 1
    return [Inner((Word("git"), *words[index:]))] if index < len(words) else []


_SPECIAL: Mapping[str, Callable[[Sequence[Word]], list[Step]]] = MappingProxyType(
    {
        "config": _config,
        "submodule": _submodule,
        "bisect": _bisect,
        "clone": _clone,
        "remote-ext": _remote_ext,
        "for-each-repo": _for_each_repo,
    }
)
