"""Shell texts for the differential fuzz: programs written from a grammar, harmless when run, and mutations of any text.

A written program runs only `zzmark` (a stub), builtins and a few filters of text; what a mutation of somebody else's
text does nobody knows: it is parsed (`bash -n`), never run.
"""

from __future__ import annotations

import random
import shlex
from base64 import b64encode
from collections.abc import Callable

MARK = "zzmark"
_DEEPEST = 5


class Writer:
    """Writes one program. `random` decides everything."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._names = 0
        self._depth = 0

    def program(self) -> str:
        """A whole text with at least one marked command."""
        lines = [self.statement() for _ in range(self._random.randint(1, 4))]
        lines.insert(self._random.randint(0, len(lines)), self.marked())
        return (
            self.one_of("\n", "; ", "\n\n").join(lines) if not any("<<" in line for line in lines) else "\n".join(lines)
        )

    def one_of[T](self, *choices: T) -> T:
        return self._random.choice(choices)

    def name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}{self._names}"

    def word(self) -> str:
        return self.one_of("a", "b", "'a b'", '"c"', "$HOME", "/x", "-r", "x=1", "~/a", "a{b,c}", "\\d", "$'e\\x41'")

    def marked(self) -> str:
        """A marked command, its name in some disguise."""
        arguments = " ".join(self.word() for _ in range(self._random.randint(0, 2)))
        v = self.name("v")
        disguises = (
            MARK,
            MARK,
            'z"z"mark',
            "zz'm'ark",
            "\\zzmark",
            "$'\\x7azmark'",
            "zz\\\nmark",
            f"{v}=zz; ${{{v}}}mark",
            f"{v}={MARK}; ${v}",
            f"{v}=xx{MARK}; ${{{v}#xx}}",
            f"{v}={MARK}xx; ${{{v}%xx}}",
            f"{v}=z_zmark; ${{{v}/_/}}",
            f"{v}=ZZMARK; ${{{v},,}}",
            f"{v}=ab{MARK}; ${{{v}:2}}",
            f"{v}=(a {MARK}); ${{{v}[1]}}",
            f'{v}=({MARK}); {v}+=(more); "${{{v}[@]}}"',
            f"{v}=zz; {v}+=mark; ${v}",
            f"unset {v}; ${{{v}:-{MARK}}}",
            f"read -r {v} <<< {MARK}; ${v}",
            f"printf -v {v} 'zz%s' mark; ${v}",
            f"$(echo {MARK})",
            "$(printf 'zz%s' mark)",
            f"`echo {MARK}`",
            f"set -- {MARK}; $1",
            f"command {MARK}",
            f"builtin command {MARK}",
            f"env {MARK}",
            f"nice {MARK}",
            f"timeout 5 {MARK}",
            f"A=1 {MARK}",
            f"> f {MARK}",
            f"2>/dev/null {MARK}",
            f"! {MARK}",
            f"time {MARK}",
            f"exec -a ls {MARK}" if self._depth > _DEEPEST else MARK,
        )
        return f"{self._random.choice(disguises)} {arguments}".strip()

    def statement(self) -> str:
        """Any statement."""
        self._depth += 1
        try:
            if self._depth > _DEEPEST:
                return self.marked()
            return self._random.choice(_STATEMENTS)(self)
        finally:
            self._depth -= 1

    # Statements, by kind.

    def plain(self) -> str:
        return self.one_of("true", "false", ":", f"echo {self.word()}", f"{self.name('v')}={self.word()}", "cd /tmp")

    def joined(self) -> str:
        return f"{self.statement()} {self.one_of('&&', '||', ';', '&')} {self.statement()}"

    def piped(self) -> str:
        return f"{self.one_of('echo a', 'printf "b\\n"')} {self.one_of('|', '|&')} {{ cat; {self.statement()}\n}}"

    def grouped(self) -> str:
        inside = self.statement()
        return self.one_of(f"{{ {inside}\n}}", f"( {inside}\n)", f"{{ {inside}\n}} > g", f"( {inside}\n) 2>&1")

    def branched(self) -> str:
        first, second = self.statement(), self.statement()
        return self.one_of(
            f"if {first}\nthen {second}\nfi",
            f"if false; then :; else {first}\n{second}\nfi",
            f"if false; then :; elif {first}\nthen {second}\nfi",
            f"case a in b) {first}\n;; *) {second}\n;; esac",
            f"case a in a) {first}\n;& b) {second}\nesac",
            f"[[ -n a ]] && {{ {first}\n}}",
            f"(( 1 + 1 )) && {{ {first}\n}}",
        )

    def looped(self) -> str:
        inside, v = self.statement(), self.name("v")
        return self.one_of(
            f"for {v} in a {MARK}; do {inside}\n${v}\ndone",
            f"for {v} in a b; do {inside}\ndone",
            f"while read -r {v}; do {inside}\ndone <<< a",
            f"echo '{MARK} q' | while read -r {v} w; do ${v} $w; done",
            f"until {inside}\ntrue; do :; done",
            f"for (({v}=0; {v}<2; {v}++)); do {inside}\ndone",
        )

    def function(self) -> str:
        inside, f = self.statement(), self.name("f")
        return self.one_of(
            f"{f}() {{ {inside}\n}}; {f}",
            f'{f}() {{ "$@"; }}; {f} {MARK} a',
            f'{f}() {{ local x=$1; shift; $x "$@"; }}; {f} {MARK} b',
            f"function {f} {{ {inside}\n}}\n{f} > h",
            f"{f}() ( {inside}\n); {f} | cat",
            f"{f}() {{ echo {MARK}; }}; $({f})",
        )

    def substituted(self) -> str:
        inside, v = self.statement(), self.name("v")
        return self.one_of(
            f"echo $( {inside}\n)",
            f'echo "$( {inside}\n)"',
            f"{v}=$( {inside}\n)",
            f"cat <( {inside}\n)",
            f"echo a > >( cat; {inside}\n)",
            f"echo ${{{v}:-$( {inside}\n)}}",
            f"echo $(( $( {inside}\necho 1) + 1 )) > /dev/null",
            f"[[ -z $( {inside}\n) ]]",
            f"case $( {inside}\n) in *) ;; esac",
            f"export {v}=$( {inside}\n)",
            f"cat <<< $( {inside}\n)",
            f"cat <<E\n$( {inside}\n)\nE",
            f"echo `{MARK} a`",
            f'echo "`echo \\`{MARK}\\``"',
        )

    def text(self) -> str:
        """Text that a shell reads."""
        inside = self.statement()
        quoted, f, v = shlex.quote(inside), self.name("s"), self.name("v")
        encoded = b64encode(inside.encode()).decode()
        return self.one_of(
            f"eval {quoted}",
            f"bash -c {quoted}",
            f"bash -xc {quoted} a b 2>/dev/null",
            f"env bash -c {quoted}",
            f"printf '%s\\n' {quoted} | bash",
            f"bash <<< {quoted}",
            f"bash <<'E'\n{inside}\nE",
            f"cat <<'E' | bash\n{inside}\nE",
            f". /dev/stdin <<< {quoted}",
            f"source <(printf '%s\\n' {quoted})",
            f"bash <(printf '%s\\n' {quoted})",
            f"printf '%s\\n' {quoted} > {f}; bash {f}",
            f"printf '%s\\n' {quoted} > {f}; . ./{f}",
            f"printf '%s\\n' {quoted} | tee {f} > /dev/null; cat {f} | bash",
            f"echo {encoded} | base64 -d | bash",
            f'bash -c "$(echo {encoded} | base64 -d)"',
            f"printf '%s\\n' {quoted} | tee >(bash) > /dev/null",
            f'{v}={quoted}; eval "${v}"',
            f'{v}={quoted}; bash -c "${v}"',
            f"{v}={quoted} bash -c 'eval \"${v}\"'",
            f"export {v}={quoted}; bash -c 'eval \"${v}\"'",
            f"trap {quoted} EXIT",
            f"find . -maxdepth 0 -exec bash -c {quoted} \\;",
            f"echo {MARK} | xargs env",
            f"echo x | xargs -I{{}} {MARK} {{}}",
            "echo KRAMZZ | rev | tr A-Z a-z | bash",
        )


_STATEMENTS: tuple[Callable[[Writer], str], ...] = (
    Writer.plain,
    Writer.marked,
    Writer.joined,
    Writer.piped,
    Writer.grouped,
    Writer.branched,
    Writer.looped,
    Writer.function,
    Writer.substituted,
    Writer.text,
    Writer.text,
)

_SPLICES = (
    *("'", '"', "`", "$(", ")", "{ ", "}", ";", "&", "|", "||", "\n", "\\", "\\\n", "#", " # ", "<<E\n", "\nE\n", "$"),
    *(
        "((",
        "))",
        "[[ ",
        " ]]",
        "<(",
        ">",
        "<",
        "${x:-",
        "then ",
        "fi",
        "do ",
        "done",
        "esac",
        "!",
        "\t",
        " ",
        "é",
        "\r",
    ),
)


def mutated(text: str, seed: int) -> str:
    """`text` after a few edits."""
    chance = random.Random(seed)
    for _ in range(chance.randint(0, 3)):
        at = chance.randint(0, len(text))
        end = min(len(text), at + chance.choice((0, 0, 1, 2, 8)))
        text = text[:at] + chance.choice((*_SPLICES, text[at:end] * 2)) + text[end:]
    return text


def marked(text: str, seed: int) -> tuple[str, int]:
    """`text` with the marker put in somewhere, and where; it may or may not be a command there."""
    chance = random.Random(seed)
    at = chance.randint(0, len(text))
    lead = chance.choice(("", "; ", "\n", " & ", " | ", " && "))
    return f"{text[:at]}{lead}{MARK} ;{text[at:]}", at + len(lead)
