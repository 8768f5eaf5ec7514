"""Variables of the environment that change what a program does: which programs they concern, and what their value is.

Rules kept here:
- A variable is listed if it makes a program run or load something else, or read other instructions. What it only
  shows or colours is not listed.
- The value's kind says what is done with it: text and programs are followed like any command, files are named for
  whoever can read them, libraries and directories of modules are only seen (a rule's `environment` can ask for them).
- A variable that names what a program *may* start (a pager, an editor) is followed whether it is started or not.

Sources: ld.so(8), bash(1), dash(1), git(1) and git-config(1), less(1), man(1), python(1), perlrun(1), ruby(1), node(1),
java(1), lua(1), php(1), rsync(1), tar(1), vim(1), make(1), sudo(8), psql(1), crontab(1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum, auto
from fnmatch import fnmatchcase
from types import MappingProxyType

from agent.shell.pieces import Word
from agent.shell.steps import SHELL, Code, Inner, Opaque, Script, ShellText, Step, split_plain
from agent.values import dataclass


class Kind(Enum):
    """What the value is. TEXT: a shell runs it. PROGRAM: is started as it stands. FUNCTION: the body of a function of
    bash, the variable's name holding the function's. EXPANDED: a shell expands it. OPTIONS: words put in front of the
    program's own. CODE: code of an interpreter. FILE: a file that is run. COLUMN: ``|COMMAND`` of less. CONFIG: one
    setting of git. SEEN: nothing that could be followed from here (libraries, directories of modules, options)."""

    TEXT = auto()
    PROGRAM = auto()
    FUNCTION = auto()
    EXPANDED = auto()
    OPTIONS = auto()
    CODE = auto()
    FILE = auto()
    COLUMN = auto()
    CONFIG = auto()
    SEEN = auto()


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the table: `name` (a glob), the programs it concerns (globs of base names), what its value is, and
    for code and files in which language."""

    name: str
    programs: tuple[str, ...]
    kind: Kind
    language: str = SHELL


ANY = ("*",)
_BASH = ("bash", "rbash", "sh")
_SHELLS = ("bash", "rbash", "sh", "dash", "ash", "ksh*", "mksh", "zsh", "yash", "posh")
_PAGED = ("git", "man", "less", "systemctl", "journalctl", "aws", "gh", "psql", "mysql", "bat", "delta", "mutt")
_EDITED = (
    *(
        "git",
        "crontab",
        "sudo",
        "sudoedit",
        "visudo",
        "vipw",
        "systemctl",
        "kubectl",
        "gh",
        "psql",
        "less",
        "hg",
        "svn",
    ),
    *("bash", "fc", "mutt", "edit", "sensible-editor", "nano", "npm", "helm", "jj"),
)


def _rows(kind: Kind, programs: Sequence[str], names: str, language: str = SHELL) -> list[Variable]:
    return [Variable(name, tuple(programs), kind, language) for name in names.split()]


TABLE: tuple[Variable, ...] = (
    *_rows(
        Kind.SEEN, ANY, "LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT GCONV_PATH NLSPATH LOCPATH OPENSSL_CONF OPENSSL_ENGINES"
    ),
    *_rows(Kind.SEEN, ANY, "DYLD_INSERT_LIBRARIES DYLD_LIBRARY_PATH GLIBC_TUNABLES"),
    # Shells.
    *_rows(Kind.FILE, ("bash", "rbash"), "BASH_ENV"),
    *_rows(Kind.FILE, ("sh", "dash", "ash", "ksh*", "mksh", "posh"), "ENV"),
    *_rows(Kind.TEXT, _BASH, "PROMPT_COMMAND"),
    *_rows(Kind.EXPANDED, _SHELLS, "PS0 PS1 PS2 PS4 BASH_ENV ENV"),
    *_rows(Kind.FUNCTION, _BASH, "BASH_FUNC_*"),
    *_rows(Kind.SEEN, _SHELLS, "SHELLOPTS BASHOPTS ZDOTDIR INPUTRC CDPATH IFS"),
    # git and what it starts.
    *_rows(Kind.TEXT, ("git",), "GIT_SSH_COMMAND GIT_EXTERNAL_DIFF GIT_PAGER GIT_EDITOR GIT_SEQUENCE_EDITOR"),
    *_rows(Kind.PROGRAM, ("git",), "GIT_SSH GIT_ASKPASS GIT_PROXY_COMMAND"),
    *_rows(Kind.CONFIG, ("git",), "GIT_CONFIG_KEY_* GIT_CONFIG_PARAMETERS"),
    *_rows(Kind.SEEN, ("git",), "GIT_CONFIG_COUNT GIT_CONFIG_VALUE_* GIT_CONFIG GIT_CONFIG_GLOBAL"),
    *_rows(
        Kind.SEEN, ("git",), "GIT_CONFIG_SYSTEM GIT_EXEC_PATH GIT_TEMPLATE_DIR GIT_DIR GIT_WORK_TREE GIT_SSH_VARIANT"
    ),
    # Pagers and editors.
    *_rows(Kind.TEXT, _PAGED, "PAGER"),
    *_rows(Kind.TEXT, ("man",), "MANPAGER"),
    *_rows(Kind.TEXT, ("systemctl", "journalctl"), "SYSTEMD_PAGER"),
    *_rows(Kind.TEXT, ("aws",), "AWS_PAGER"),
    *_rows(Kind.TEXT, ("gh",), "GH_PAGER GH_EDITOR GH_BROWSER"),
    *_rows(Kind.TEXT, ("psql",), "PSQL_PAGER PSQL_EDITOR"),
    *_rows(Kind.TEXT, ("bat", "batcat"), "BAT_PAGER"),
    *_rows(Kind.TEXT, ("delta",), "DELTA_PAGER"),
    *_rows(Kind.COLUMN, ("less", "man", "git"), "LESSOPEN LESSCLOSE"),
    *_rows(Kind.SEEN, ("less", "man", "git"), "LESS LESSKEY LESSKEYIN LESSKEY_CONTENT"),
    *_rows(Kind.TEXT, _EDITED, "EDITOR VISUAL"),
    *_rows(Kind.TEXT, ("sudo", "sudoedit"), "SUDO_EDITOR"),
    *_rows(Kind.TEXT, ("kubectl",), "KUBE_EDITOR"),
    *_rows(Kind.TEXT, ("systemctl",), "SYSTEMD_EDITOR"),
    *_rows(Kind.TEXT, ("hg",), "HGEDITOR HGMERGE"),
    *_rows(Kind.TEXT, ("svn",), "SVN_EDITOR SVN_SSH SVN_MERGE"),
    *_rows(Kind.TEXT, ("bash",), "FCEDIT"),
    *_rows(Kind.TEXT, ("xdg-open", "sensible-browser", "python*", "npm", "gh", "man"), "BROWSER"),
    *_rows(Kind.TEXT, ("vim", "vi", "nvim", "ex", "view"), "VIMINIT EXINIT", "vim"),
    *_rows(Kind.PROGRAM, ("ssh", "ssh-add", "git", "sudo"), "SSH_ASKPASS SUDO_ASKPASS"),
    # Interpreters.
    *_rows(Kind.FILE, ("python*", "pypy*"), "PYTHONSTARTUP", "python"),
    *_rows(Kind.SEEN, ("python*", "pypy*"), "PYTHONPATH PYTHONHOME PYTHONUSERBASE PYTHONINSPECT PYTHONBREAKPOINT"),
    *_rows(Kind.SEEN, ("python*", "pypy*"), "PYTHONEXECUTABLE PYTHONPLATLIBDIR"),
    *_rows(Kind.OPTIONS, ("perl*",), "PERL5OPT"),
    *_rows(Kind.CODE, ("perl*",), "PERL5DB", "perl"),
    *_rows(Kind.SEEN, ("perl*",), "PERL5LIB PERLLIB PERL5SHELL PERLIO"),
    *_rows(Kind.OPTIONS, ("ruby*",), "RUBYOPT"),
    *_rows(Kind.SEEN, ("ruby*", "gem", "bundle"), "RUBYLIB GEM_PATH GEM_HOME BUNDLE_GEMFILE"),
    *_rows(Kind.OPTIONS, ("node", "nodejs"), "NODE_OPTIONS"),
    *_rows(Kind.SEEN, ("node", "nodejs"), "NODE_PATH NODE_REPL_EXTERNAL_MODULE"),
    *_rows(Kind.OPTIONS, ("java",), "JAVA_TOOL_OPTIONS JDK_JAVA_OPTIONS _JAVA_OPTIONS"),
    *_rows(Kind.CODE, ("lua*",), "LUA_INIT LUA_INIT_*", "lua"),
    *_rows(Kind.SEEN, ("lua*",), "LUA_PATH LUA_CPATH LUA_PATH_* LUA_CPATH_*"),
    *_rows(Kind.SEEN, ("php*",), "PHPRC PHP_INI_SCAN_DIR"),
    # Others that run what a variable says.
    *_rows(Kind.TEXT, ("rsync",), "RSYNC_RSH RSYNC_CONNECT_PROG"),
    *_rows(Kind.PROGRAM, ("cvs",), "CVS_RSH"),
    *_rows(Kind.OPTIONS, ("tar", "gtar"), "TAR_OPTIONS"),
    *_rows(Kind.TEXT, ("tar", "gtar"), "TAPE_RSH RSH"),
    *_rows(Kind.SEEN, ("make", "gmake"), "MAKEFLAGS MAKEFILES GNUMAKEFLAGS"),
    *_rows(Kind.PROGRAM, ("cargo",), "RUSTC RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER"),
    *_rows(Kind.SEEN, ("cargo", "rustc"), "RUSTDOC RUSTFLAGS"),
    *_rows(Kind.SEEN, ("rg", "curl", "wget", "pip*", "npm"), "RIPGREP_CONFIG_PATH CURL_HOME WGETRC PIP_CONFIG_FILE"),
    *_rows(Kind.TEXT, ("fzf",), "FZF_DEFAULT_COMMAND"),
    *_rows(Kind.SEEN, ("docker", "podman", "nerdctl", "docker-compose"), "DOCKER_HOST DOCKER_CONTEXT CONTAINER_HOST"),
    *_rows(Kind.SEEN, ("kubectl", "helm", "oc"), "KUBECONFIG KUBECTL_EXTERNAL_DIFF"),
    *_rows(Kind.SEEN, ("terraform", "tofu", "terragrunt"), "TF_CLI_ARGS* TF_CLI_CONFIG_FILE"),
)

_EXACT: Mapping[str, tuple[Variable, ...]] = MappingProxyType(
    {name: tuple(row for row in TABLE if row.name == name) for name in {row.name for row in TABLE} if "*" not in name}
)
_GLOBS = tuple(row for row in TABLE if "*" in row.name)
HEAD = 4
HEADS = frozenset(f"{row.name}=".replace("*", "")[:HEAD].encode() for row in TABLE)
"""How the ``NAME=VALUE`` strings of the table begin: their first `HEAD` bytes. Others may begin so too (`is_named`)."""


def is_named(name: str) -> bool:
    """Is a variable of this name in the table?"""
    return name in _EXACT or any(fnmatchcase(name, row.name) for row in _GLOBS)


def rows(name: str) -> Iterator[Variable]:
    """The table's rows for a variable of this name."""
    yield from _EXACT.get(name, ())
    yield from (row for row in _GLOBS if fnmatchcase(name, row.name))


def has_payload(program: str, assignments: Iterable[tuple[str, str]]) -> bool:
    """False where `payloads` finds nothing of these variables, whatever the words are."""
    return any(_concerns(row, program) for name, _ in assignments for row in rows(name))


def payloads(program: str, words: Sequence[Word], assignments: Iterable[tuple[str, str]]) -> list[Step]:
    """What `program`, started with `words`, runs further because of the variables set for it."""
    found: list[Step] = []
    pairs = tuple(assignments)
    given = dict(pairs)
    for name, value in pairs:  # each of them, where a name is given twice: programs differ in which they take
        for row in rows(name):
            if _concerns(row, program):
                found += _steps(row, name, value, words, given)
    return found


def _concerns(row: Variable, program: str) -> bool:
    return row.kind is not Kind.SEEN and any(fnmatchcase(program, pattern) for pattern in row.programs)


def _steps(row: Variable, name: str, value: str, words: Sequence[Word], given: Mapping[str, str]) -> list[Step]:
    if not value.strip():
        return []
    match row.kind:
        case Kind.TEXT if row.language == "vim":
            return [Inner((Word("vim"), Word("-c"), Word(value)))]
        case Kind.TEXT:
            return [ShellText(Word(value))]
        case Kind.PROGRAM:
            return [Inner((Word(value), Word("-")))]
        case Kind.FUNCTION:
            function = re.sub(r"%%$|\(\)$", "", name.removeprefix("BASH_FUNC_"))
            return [ShellText(Word(f"{function} {value}"))]
        case Kind.EXPANDED:
            return _expanded(value)[:1] if "$(" in value or "`" in value else []
        case Kind.COLUMN:
            return [ShellText(Word(value.lstrip("|-").replace("%s", "-").replace("%%", "%")))]
        case Kind.CONFIG if name == "GIT_CONFIG_PARAMETERS":
            settings = [word for pair in split_plain(Word(value)) for word in (Word("-c"), pair)]
            return [Inner((words[0], *settings, *words[1:]))]
        case Kind.CONFIG:
            setting = given.get(name.replace("_KEY_", "_VALUE_"), "")
            return [Inner((words[0], Word("-c"), Word(f"{value}={setting}"), *words[1:]))]
        case Kind.FILE:
            return [Script(row.language, Word(value)), *(_expanded(value) if row.language == SHELL else ())]
        case Kind.CODE:
            return [Script(row.language, Word(value[1:])) if value.startswith("@") else Code(row.language, Word(value))]
        case Kind.OPTIONS:
            return _options(row, value, words)
        case Kind.SEEN:
            return []


def _expanded(value: str) -> list[Step]:
    """What expanding a value as bash does with that of BASH_ENV can run, and that its outcome is not known."""
    if not re.search(r"[$`]", value):
        return []
    return [
        ShellText(Word(f": <<PARHELIA\n{value}\nPARHELIA\n")),
        Opaque("a file's name is expanded before it is read"),
    ]


def _options(row: Variable, value: str, words: Sequence[Word]) -> list[Step]:
    """Options that the program takes as if they stood in front of its own. Only what they run is followed."""
    given = [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r"(?:\\.|\S)+", value)]
    match row.programs[0]:
        case "tar":
            return [Inner((words[0], *split_plain(Word(value)), *words[1:]))]
        case "perl*":
            modules = [word.lstrip("-Mm") for word in value.split() if word.startswith(("-M", "-m"))]
            return [Code("perl", Word(f"use {module};")) for module in modules if re.search(r"[;({`'\"]", module)]
        case "java":
            hooks = re.findall(r"-XX:OnError=(\S+)|-XX:OnOutOfMemoryError=(\S+)", value)
            return [ShellText(Word(text)) for pair in hooks for text in pair if text]
    loaded = ("-r", "--require", "--import", "--loader", "--experimental-loader")
    files = [word.partition("=")[2] for word in given if word.startswith(tuple(f"{name}=" for name in loaded))]
    files += [given[index + 1] for index, word in enumerate(given[:-1]) if word in loaded]
    files += [word[2:] for word in given if re.match(r"-r[./]", word)]
    language = "ruby" if row.programs[0] == "ruby*" else "node"
    return [Script(language, Word(file)) for file in files if "/" in file and not file.startswith("data:")]
