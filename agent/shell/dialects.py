"""Command languages of programs, no programming languages: what in them is handed to a shell, or is a file.

Rules: only what the manual names as a door is one; the rest of the text is data. An unknown part of a text is unknown
in
what is taken from it. Sources: vim(1) ``:help :!``, ed(1), less(1), psql(1), mysql(1), sqlite3(1) "Special commands",
gdb(1) ``help shell``, GNU make "Recipe Syntax" and "Functions", ninja's manual "Rules", just's manual, crontab(5),
rpm "Macro syntax", GNU sed ``e`` and ``w``, gnuplot ``help system``, web2c ``\\write18``, kakoune "expansions".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from agent.expressions import expression
from agent.policy.request import UNKNOWN
from agent.shell.databases import mongo, redis, sql_alone, with_sql
from agent.shell.makefiles import make_steps
from agent.shell.pieces import Word
from agent.shell.steps import Code, Inner, Opaque, ShellText, Step, Touches, reads_descriptor


def _shell_after(pattern: str, flags: int = 0) -> Callable[[Word], Iterator[Step]]:
    """A dialect whose door is a pattern: its first group that matched is shell text."""
    door = expression(pattern, flags | re.MULTILINE)

    def steps(text: Word) -> Iterator[Step]:
        if text.text == UNKNOWN:
            yield Opaque("commands that are not known before they run")
        for found in door.finditer(text.text):
            shell = next((group for group in found.groups() if group), "")
            if shell:
                yield ShellText(text._replace(text=shell))

    return steps


_EX_SHELL = expression(
    r"^[:\s]*+(?:(?:sil(?:ent)?!?|verb(?:ose)?|noa(?:utocmd)?|norm(?:al)?!?\s*:|(?:buf|win|tab|arg|[clf])do|exe(?:cute)?\s*['\"])\s*+)*+"
    r"(?:[%\d.,$'<>/\w]*+\s*+!++|(?:ter|term|terminal)!?\s++(?:\+\+\S++\s++)*+)(?P<shell>.*)",
    re.DOTALL,
)
_EX_TERMINAL = expression(r"[:\s]*+(?:sh|she|shel|shell|ter|term|terminal)!?\s*")
_EX_CALL = expression(r"\b(?:system|systemlist|termopen|jobstart|job_start|term_start)\s*\(\s*(['\"])(?P<shell>.*?)\1")
_EX_LANGUAGE = expression(
    r"^[:\s]*+(?P<name>py|python|py3|python3|pyx|pythonx|lua|perl|ruby|rub)\s+(?P<code>.*)", re.DOTALL
)
_EX_WRITE = expression(r"^[:\s]*+(?:w|wr|write|wq|sav|saveas|x)!?\s+(?P<file>[^!>\s]\S*)")
_EX_LANGUAGES = {"py": "python", "lu": "lua", "pe": "perl", "ru": "ruby"}


def _vim(text: Word) -> Iterator[Step]:
    """An ex command line (``|`` ends a command, but not behind ``!``)."""
    if text.text == UNKNOWN:
        yield Opaque("editor commands that are not known before they run")
    for line in text.text.splitlines() or [""]:
        for part in [line, *line.split("|")[1:]]:
            shell = _EX_SHELL.match(part)
            if shell is not None and shell["shell"]:
                yield ShellText(
                    text._replace(text=shell["shell"].rstrip("'\"") if "exe" in shell[0] else shell["shell"])
                )
            elif _EX_TERMINAL.fullmatch(part):
                yield Inner((Word("sh"),))
            code = _EX_LANGUAGE.match(part)
            if code is not None:
                yield Code(_EX_LANGUAGES[code["name"][:2]], text._replace(text=code["code"]))
            written = _EX_WRITE.match(part)
            if written is not None:
                yield Touches(">", text._replace(text=written["file"]))
        for call in _EX_CALL.finditer(line):
            yield ShellText(text._replace(text=call["shell"]))


_GDB_SHELL = expression(
    r"^\s*(?:shell|!|platform\s+shell|pipe\s[^|]*\||\|[^|]*\||make)\s*(?P<shell>.*)|^\s*(?:python|py|pi|script)\s+(?P<py>.*)"
)


def _gdb(text: Word) -> Iterator[Step]:
    if text.text == UNKNOWN:
        yield Opaque("debugger commands that are not known before they run")
    for line in text.text.splitlines():
        found = _GDB_SHELL.match(line)
        if found is not None and found["py"]:
            yield Code("python", text._replace(text=found["py"]))
        elif found is not None and found["shell"]:
            yield ShellText(text._replace(text=found["shell"]))
        called = re.search(r"\b(?:system|popen|execl?p?)\s*\(\s*\"([^\"]*)\"", line)
        if called is not None:
            yield ShellText(text._replace(text=called[1]))


_PSQL = expression(
    r"\\!\s*(?P<shell>[^\n]*)|\\(?:o|out|g|gx|w|write|copy\s[^\n]{0,1000}?\s(?:to|from)\s+program)\s*\|?\s*(?P<pipe>[|'][^\n]*)"
    r"|^\\[^\n`]*`(?P<ticks>[^`\n]*)`|\b(?:to|from)\s+program\s+(?:E|\$\$)?(?P<quote>')?(?P<program>(?:[^']|'')*)",
    re.IGNORECASE | re.MULTILINE,
)


def _psql(text: Word) -> Iterator[Step]:
    """``\\! CMD``, ``\\o |CMD``, ``COPY … TO PROGRAM 'CMD'`` (the server runs the last one)."""
    if text.text == UNKNOWN:
        yield Opaque("psql reads commands that are not known before they run")
    for found in _PSQL.finditer(text.text):
        shell = (
            found["shell"]
            or found["ticks"]
            or (found["pipe"] or "").strip("|' ")
            or (found["program"] or "").replace("''", "'")
        )
        if shell.strip():
            yield ShellText(text._replace(text=shell.strip()))


def _crontab(text: Word) -> Iterator[Step]:
    """crontab(5): five fields or ``@when``, then shell text (``%`` is a line's end)."""
    if text.text == UNKNOWN:
        yield Opaque("crontab installs jobs that are not known before they run")
    for line in text.text.splitlines():
        job = re.match(r"\s*(?:@\w+|(?:[\d*][^\s]*\s+){4}[^\s]+)\s+(.*)", line)
        if job is not None:
            yield ShellText(text._replace(text=job[1].partition("%")[0]))


def _keys(text: Word) -> Iterator[Step]:
    """What is typed into a terminal (tmux(1) send-keys, screen(1) stuff): ``\\n``, ``\\r`` and ``^M`` end a line."""
    yield ShellText(text._replace(text=re.sub(r"\\(?:n|r|012|015)|\^[MmJj]|\r", "\n", text.text)))


def _ext(text: Word) -> Iterator[Step]:
    """git-remote-ext(1): words at blanks, ``% `` is a blank in a word."""
    words = [re.sub(r"%([ %])", r"\1", part) for part in re.split(r"(?<!%) +", text.text) if part]
    if words:
        yield Inner(tuple(text._replace(text=word) for word in words))


def _tex(text: Word) -> Iterator[Step]:
    for found in re.finditer(r"\\(?:immediate\s*\\)?write18\s*\{([^{}]*)\}|\\input\s*\|\s*\"?([^\"{}]*)", text.text):
        yield ShellText(text._replace(text=found[1] or found[2]))
    for found in re.finditer(r"\\directlua\s*\{(.*)\}", text.text, re.DOTALL):
        yield Code("lua", text._replace(text=found[1]))


def _rpm(text: Word) -> Iterator[Step]:
    for found in re.finditer(r"%\((.*)\)", text.text, re.DOTALL):
        yield ShellText(text._replace(text=found[1]))
    for found in re.finditer(r"%\{lua:(.*)\}", text.text, re.DOTALL):
        yield Code("lua", text._replace(text=found[1]))


_SQLITE = _shell_after(
    r"^[ \t]*+\.(?:shell|system)\s+(.+)|^[ \t]*+\.(?:once|output|import|excel|read)\s+['\"]?\|([^'\"\n]+)"
    r"|\bedit\s*\([^,)]*,\s*'([^']*)'"
)

DIALECTS: Mapping[str, Callable[[Word], Iterator[Step]]] = MappingProxyType(
    {
        "vim": _vim,
        "gdb": _gdb,
        "psql": with_sql(_psql),
        "sql": with_sql(sql_alone),
        "mongo": mongo,
        "redis": redis,
        "crontab": _crontab,
        "ext": _ext,
        "keys": _keys,
        "tex": _tex,
        "rpm": _rpm,
        "make": make_steps,
        "ed": _shell_after(r"^[%\d.,$]*+[ \t]*+(?:[rwe][ \t]*+)?!(.+)"),
        "less": _shell_after(r"^[^!|]{0,3}[!|]+(.+)"),
        "m4": _shell_after(r"\be?syscmd\(\s*[`'\"\[]*([^)`'\"\]]*)"),
        "bus": _shell_after(r"unixexec:path=(.*)"),
        "bang": _shell_after(r"^[: \t]*+(?:!++|shell\b|local\b|host\b|!!)\s*(.+)"),
        "mysql": with_sql(
            _shell_after(r"(?:^|;)[ \t]*+(?:\\!|system\b|\\P|pager\b)\s*(.+)", re.IGNORECASE), mysql=True
        ),
        "sqlite": with_sql(_SQLITE),
        "gnuplot": _shell_after(r"(?:^|;)[ \t]*+!(.+)|\bsystem\s*\(?\s*[\"']([^\"']*)|[\"']\s*[<|]([^\"']*)"),
        "postscript": _shell_after(r"\(%pipe%([^)]*)\)"),
        "kakoune": _shell_after(r"%sh\s*[{(\[<](.*)[})\]>]|^[ \t]*+!(.*)", re.DOTALL),
        "ghci": _shell_after(r"^[ \t]*+:!(.+)|\b(?:system|callCommand|readProcess)\s+\"([^\"]*)"),
        "nix": _shell_after(r"\bshellHook\s*=\s*(?:''|\")(.*?)(?:''|\")", re.DOTALL),
    }
)
"""By the name that the table of carriers uses."""


LONGEST = 16 << 10
"""Characters of a text in such a language that are read; a longer one is not known."""


def says(dialect: str, text: Word) -> list[Step]:
    """What `text`, commands of the language `dialect`, hands on."""
    if len(text.text) > LONGEST:
        return [Opaque("commands that are too long to be followed")]
    return [*DIALECTS[dialect](text)]


_SED_LETTER = expression(
    r"(?:^|[;\n{}])[ \t]*+(?:(?:\d+|\$|/(?:[^/\\\n]|\\.)*/|\\(.)(?:(?!\1).)*\1)[IM]?"
    r"(?:\s*[,~]\s*(?:[+~]?\d+|\$|/(?:[^/\\\n]|\\.)*/[IM]*))?"
    r"\s*!?\s*)?(?:e(?:\s+(?P<shell>[^\n]+)|(?P<all>)(?=$|[;\n}]))|(?P<mode>[wWrR])\s+(?P<file>[^\n;}]+))"
)
_SED_SUBSTITUTE = expression(r"s(?P<d>[^\w\s\\;])(?:(?!(?P=d))[^\\]|\\.)*(?P=d)(?P<new>(?:(?!(?P=d))[^\\]|\\.)*)(?P=d)")
_SED_FLAGS = expression(r"(?P<flags>[gpiImM\d]*e?[gpiImM\d]*)(?:w\s+(?P<file>[^\n;}]+))?")


def sed_steps(words: Sequence[Word], stdin: Word | None) -> list[Step]:
    """sed(1): the scripts of ``-e`` or the first operand; what ``e`` runs and ``w`` writes."""
    found: list[Step] = []
    scripts: list[Word] = []
    operands: list[Word] = []
    index, files = 1, False
    while index < len(words):
        text = words[index].text
        short = re.match(r"-[nErsuzbl]*([ef])(.*)", text, re.DOTALL)
        long = re.match(r"--(?:exp\w*|(f)ile)(?:=(.*))?$", text, re.DOTALL)
        if short is not None or long is not None:
            value = short[2] if short is not None else (long[2] if long is not None else "")
            given = (
                words[index]._replace(text=value)
                if value
                else (words[index + 1] if index + 1 < len(words) else Word(""))
            )
            index += not value
            if (short is not None and short[1] == "f") or (long is not None and long[1]):
                files = True
                if reads_descriptor(given.text) or given.text == "-":
                    scripts += [stdin] if stdin is not None else []
            else:
                scripts.append(given)
        elif not text.startswith("-") or text == "-":
            operands.append(words[index])
        index += 1
    if not scripts and not files:
        scripts = operands[:1]
    for script in scripts:
        if len(script.text) > LONGEST:
            found.append(Opaque("commands that are too long to be followed"))
        else:
            found += _sed_script(script)
    return found


def _sed_script(script: Word) -> Iterator[Step]:
    text = script.text
    for found in _SED_SUBSTITUTE.finditer(text):
        before = text[: found.start()].rstrip()
        if before and not re.search(r"[;\n{}/\d$!,\\+~IM]$", before):
            continue
        flags = _SED_FLAGS.match(text, found.end())
        if flags is not None and "e" in flags["flags"]:
            new = found["new"].replace("\\" + found["d"], found["d"])
            if re.search(r"(?<!\\)&|\\\d", new):
                yield Opaque("sed runs lines of its input as commands")
            else:
                yield ShellText(script._replace(text=new))
        if flags is not None and flags["file"]:
            yield Touches(">", script._replace(text=flags["file"]))
    plain = _SED_SUBSTITUTE.sub("s", text)
    for command in _SED_LETTER.finditer(plain):
        if command["shell"]:
            yield ShellText(script._replace(text=command["shell"]))
        elif command["mode"]:
            yield Touches(">" if command["mode"] in "wW" else "<", script._replace(text=command["file"].strip()))
        else:
            yield Opaque("sed runs lines of its input as commands")
