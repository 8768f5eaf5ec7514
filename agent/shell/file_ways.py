"""The programs whose way of naming files is their own: archives, dd, find, git, curl, openssl, compilers, perl, ``.``.

Rules kept here: as in `agent.shell.file_uses`, only what is certain counts. Where a program makes files of names that
are not in its words (an archive's members), the directory that they are made in is written.

Sources: dd(1), tar(1), unzip(1), find(1), git-config(1), git-clone(1), git-init(1), curl(1), openssl(1), ssh-keygen(1),
gpg(1), gcc(1), perlrun(1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from agent.policy.request import UNKNOWN
from agent.shell.file_uses import Form, How, Used, files_by_form, sorted_words

_HERE: Final = "."


def _dd(words: Sequence[str]) -> Iterator[Used]:
    for word in words:
        key, _, value = word.partition("=")
        if key in ("of", "if") and value:
            yield Used(How.WRITE if key == "of" else How.READ, value)


_TAR: Final = Form(
    "xctruvzjJapPkmOSwWhf:C:",
    "extract get create list append update file= directory= gzip gunzip bzip2 xz zstd verbose strip-components= "
    "exclude= no-same-owner no-same-permissions same-owner to-stdout auto-compress overwrite keep-old-files wildcards "
    "numeric-owner owner= group= mode= sort= mtime= preserve-permissions touch",
)
_TAR_OLD: Final = frozenset("xctruvzjJapPkmOSwWhf")


def _tar(words: Sequence[str]) -> Iterator[Used]:
    if words and _TAR_OLD.issuperset(words[0]):
        file = [f"--file={words[1]}"] if "f" in words[0] and len(words) > 1 else []
        words = [f"-{words[0].replace('f', '')}", *file, *words[1 + len(file) :]]
    found = sorted_words(_TAR, words)
    if found is None:
        return
    options, operands = found
    given = {name for name, _ in options}
    files = [value for name, value in options if name in ("f", "file") and ":" not in value]
    directories = [value for name, value in options if name in ("C", "directory")]
    if given & {"x", "extract", "get"}:
        yield from (Used(How.READ, file) for file in files)
        if not given & {"O", "to-stdout"} and len(directories) < 2:
            yield Used(How.WRITE, directories[0] if directories else _HERE)
    elif given & {"c", "create", "r", "append", "u", "update"}:
        yield from (Used(How.WRITE, file) for file in files)
        if not directories:
            yield from (Used(How.READ, operand) for operand in operands)
    elif given & {"t", "list"}:
        yield from (Used(How.READ, file) for file in files)


_UNZIP: Final = Form("oqnjutlpd:LCX")


def _unzip(words: Sequence[str]) -> Iterator[Used]:
    found = sorted_words(_UNZIP, words)
    if found is None or not found[1]:
        return
    options, operands = dict(found[0]), found[1]
    yield Used(How.READ, operands[0])
    if options.keys().isdisjoint("tlp"):
        yield Used(How.WRITE, options.get("d") or _HERE)


_FIND_FILES: Final = frozenset({"-fprint", "-fprint0", "-fprintf", "-fls"})


def _find(words: Sequence[str]) -> Iterator[Used]:
    at = next((index for index, word in enumerate(words) if word not in ("-H", "-L", "-P")), len(words))
    end = next((index for index, word in enumerate(words) if index >= at and word[:1] in ("-", "(", "!")), len(words))
    if "-delete" in words[end:] and UNKNOWN not in "".join(words[at:end]):
        yield from (Used(How.WRITE, word) for word in words[at:end] or [_HERE])
    for word, file in zip(words[end:], words[end + 1 :], strict=False):
        if word in _FIND_FILES:
            yield Used(How.WRITE, file)


_GIT_CONFIG: Final = Form(
    "zlef:",
    "file= get get-all get-regexp list add unset unset-all replace-all type= bool int bool-or-int path null name-only "
    "show-origin show-scope rename-section remove-section edit default= includes no-includes fixed-value all value=",
)
_GIT_READS: Final = frozenset({"get", "get-all", "get-regexp", "list", "l"})
_GIT_CLONE: Final = Form(
    "qvlsnb:o:c:j:",
    "quiet verbose progress no-checkout bare mirror depth= branch= origin= config= jobs= filter= single-branch "
    "no-single-branch no-tags recurse-submodules shallow-submodules sparse",
    places=(None, How.WRITE),
)
_GIT_INIT: Final = Form("qb:", "quiet bare initial-branch= object-format= shared", How.WRITE)


def _git(words: Sequence[str]) -> Iterator[Used]:
    match list(words[:1]):
        case ["config"]:
            yield from _git_config(words[1:])
        case ["clone"]:
            yield from files_by_form(_GIT_CLONE, words[1:])
        case ["init"]:
            yield from files_by_form(_GIT_INIT, words[1:])


def _git_config(words: Sequence[str]) -> Iterator[Used]:
    found = sorted_words(_GIT_CONFIG, words)
    if found is None:
        return
    options, operands = found
    given = {name for name, _ in options} | set(operands[:1])
    alone = len(operands) < 2 and given.isdisjoint(("add", "unset", "unset-all", "edit", "e", "remove-section"))
    how = How.READ if alone or not given.isdisjoint(_GIT_READS) else How.WRITE
    yield from (Used(how, value) for name, value in options if name in ("f", "file"))


_CURL: Final = Form(
    "012346aBfgGiIjJklLMnNOpqRsSvVZA:b:c:C:d:D:e:E:F:H:K:m:o:P:Q:r:t:T:u:U:w:x:X:y:Y:z:",
    "output= output-dir= cookie-jar= dump-header= upload-file= config= trace= trace-ascii= stderr= data= data-binary= "
    "data-ascii= data-urlencode= json= form= header= user-agent= request= url= user= proxy= referer= cookie= "
    "write-out= max-time= connect-timeout= retry=",
    takes={
        **dict.fromkeys(("c", "cookie-jar", "D", "dump-header", "trace", "trace-ascii", "stderr"), How.WRITE),
        **dict.fromkeys(("T", "upload-file", "K", "config"), How.READ),
    },
    loose=True,
)
_CURL_DATA: Final = frozenset({"d", "data", "data-binary", "data-ascii", "json"})


def _curl(words: Sequence[str]) -> Iterator[Used]:
    found = sorted_words(_CURL, words)
    if found is None:
        return
    options = found[0]
    directory = dict(options).get("output-dir", "")
    for name, value in options:
        if name in ("o", "output") and value and value != "-":
            yield Used(How.WRITE, f"{directory.rstrip('/')}/{value}" if directory and value[0] != "/" else value)
        elif name in _CURL_DATA and value.startswith("@"):
            yield Used(How.READ, value[1:])
        elif name in ("F", "form") and value.partition("=")[2].startswith(("@", "<")):
            yield Used(How.READ, value.partition("=")[2][1:].partition(";")[0])
    yield from files_by_form(_CURL, words)


_PERL: Final = Form("nplawTtuUWXsS0123456789i::e:E:", first=True)


def _perl(words: Sequence[str]) -> Iterator[Used]:
    """Where its program is among the words, and reads (``-n``, ``-p``) or replaces (``-i``) the files behind it."""
    found = sorted_words(_PERL, words)
    given = {name for name, _ in found[0]} if found is not None else set()
    if found is not None and not given.isdisjoint("eE") and not given.isdisjoint("np"):
        yield from (Used(How.PLACE if "i" in given else How.READ, word) for word in found[1])


def _behind(takes: Mapping[str, How]) -> Callable[[Sequence[str]], Iterator[Used]]:
    """The words behind these options, spelled so."""

    def way(words: Sequence[str]) -> Iterator[Used]:
        for word, file in pairwise(words):
            if word in takes and not file.startswith("-"):
                yield Used(takes[word], file)

    return way


def _ssh_keygen(words: Sequence[str]) -> Iterator[Used]:
    how = How.READ if not {"-y", "-l", "-i", "-e", "-B", "-F"}.isdisjoint(words) else How.WRITE
    yield from _behind({"-f": how})(words)


def _sourced(words: Sequence[str]) -> Iterator[Used]:
    if words and "/" in words[0]:
        yield Used(How.READ, words[0])


_OUT: Final = _behind({"-o": How.WRITE})

WAYS: Final[Mapping[str, Callable[[Sequence[str]], Iterator[Used]]]] = MappingProxyType(
    {
        "dd": _dd,
        **dict.fromkeys(("tar", "gtar"), _tar),
        "unzip": _unzip,
        "find": _find,
        "git": _git,
        "curl": _curl,
        "perl": _perl,
        "openssl": _behind({"-in": How.READ, "-inkey": How.READ, "-out": How.WRITE, "-keyout": How.WRITE}),
        "gpg": _behind({"-o": How.WRITE, "--output": How.WRITE}),
        "ssh-keygen": _ssh_keygen,
        **dict.fromkeys(("cc", "gcc", "g++", "c++", "clang", "clang++", "ld", "go", "rustc"), _OUT),
        **dict.fromkeys((".", "source"), _sourced),
    }
)
