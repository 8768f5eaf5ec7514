"""What a shell expands or runs a second time: the reason is given, text is followed, and plain uses are let be."""

from __future__ import annotations

import pytest

from agent.shell.again import look, look_at_text
from agent.shell.findings import Findings
from agent.shell.pieces import Word
from tests.shell.given import answer, request

HOLDS = "a substitution in a subscript may be made when the value is read as a number or a name"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[[ -v 'a[$(id)]' ]]", HOLDS),
        ("echo \"'\"; [[ -v 'a[$(id)]' ]]", HOLDS),
        ("[[ -v 'a[b[0]+$(id)]' ]]", HOLDS),
        ("x=a[\\$\\(id\\)]; (( x ))", HOLDS),
        ("declare -i x; x='a[$(id)]'", HOLDS),
        ("set -- '$(id)'; echo \"${1@P}\"", "a value is expanded as a prompt is"),
        ("hash -p /bin/rm ls", "hash gives a program another name"),
        ("BASH_CMDS[ls]=/bin/rm", "BASH_CMDS gives a program another name"),
        ("enable -f ./x.so x", "enable loads a library into the shell"),
        ("fc -s", "fc runs lines of the history"),
        ("alias then='then id;'", "an alias changes a word of the shell's grammar"),
        ("compgen -W '$(id)'", "compgen expands its words once more"),
        ("exec < commands; bash", "exec gives another standard input to everything that follows"),
        (
            "python3 -c 'import os; f=os.system; f(\"id\")'",
            "a function that runs or deletes something is handed on and not called by its name",
        ),
        ("coproc bash", "what a coprocess will read is not known"),
    ],
)
def test_what_is_done_a_second_time_is_unverifiable(text: str, why: str) -> None:
    assert why in (request(text).unverifiable or "")


@pytest.mark.parametrize(
    "text",
    [
        "hash -p /bin/rm ls; ls -rf /etc",
        "mapfile -C 'rm -rf /etc #' -c 1 < /etc/passwd",
        "readarray -C'rm -rf /etc #' x < /etc/passwd",
        "compgen -C 'rm -rf /etc'",
        "complete -C 'rm -rf /etc' x",
        "bind -x '\"\\C-a\": rm -rf /etc'",
        "bash -s -- /etc <<< 'rm -rf $1'",
        "env a.b=1 rm -rf /etc",
        "setarch x86_64 rm -rf /etc",
        "setarch x86_64 -R rm -rf /etc",
        "setarch -R rm -rf /etc",
        "vim -es -c '!rm -rf /etc' -c q",
        "ex -s +'!rm -rf /etc' +q",
        "vim -e -s -c '!rm -rf /etc'",
        "echo 'rm -rf /etc' > f & wait; . ./f",
    ],
)
def test_text_that_a_builtin_or_an_option_runs_is_followed(text: str) -> None:
    assert answer(text) == ("deny", "recursive-delete-system")


@pytest.mark.parametrize(
    "text",
    [
        "hash -r",
        "complete -W 'start stop' service",
        "fc -l",
        "mapfile -t lines < f; echo ${lines[0]}",
        "for ((i = 0; i < 3; i++)); do echo ${a[$i]}; done",
        "a[$((i + 1))]=2; (( a[0] ))",
        "x=${list[i % 3]}; printf '%s' \"$x\"",
        "awk '{ n[$1]++ } END { for (k in n) print n[k] }' f; read x < f",
        "git commit -m 'see list[0] and `code`'; export A=1",
        "declare -A m=([a]=1); echo ${m[a]}",
        "vim -s keys.txt notes",
        "echo $$ | bash -s -- x <<< 'echo $1'",
    ],
)
def test_ordinary_uses_are_understood(text: str) -> None:
    assert request(text).unverifiable is None


def test_the_ways_through_a_text_and_the_elements_of_an_array_are_bounded() -> None:
    branches = "".join(f"if x; then a{i}=1; else a{i}=2; fi;" for i in range(60))
    assert request(f"{branches} cd x; echo {''.join(f'$a{i}' for i in range(60))} $PWD").commands[-1].program == "echo"
    assert request(f"a=({'x ' * 1_000}); mkfs {'${a[@]}${a[@]} ' * 400}$(mkfs)").commands[-1].program == "mkfs"
    assert "too many substitutions" in (request("echo $(id)\n" * 6_000).unverifiable or "")
    assert request(f"a=({'x ' * 30_000}); {'"${a[@]}" ' * 50}").unverifiable is not None


@pytest.mark.parametrize("part", ["a[", "'a[", "a[\\$(", "[`", "${a[", "'x[$(' ", "]="])
def test_long_texts_are_looked_at_once(part: str) -> None:
    findings = Findings("/home/session")
    look_at_text(part * 200_000 + "((", findings)
    look([Word(part * 200_000)], "((", findings)
