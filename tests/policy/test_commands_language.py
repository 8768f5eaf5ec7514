"""The keys of a command rule's match, one by one, over what the analysis of a text finds."""

from __future__ import annotations

import pytest

from agent.policy.commands import Fit, Places, judge
from agent.policy.model import CommandMatch
from agent.policy.request import UNKNOWN, SimpleCommand

HOME = "/home/session"
CWD = "/vol/parhelia/workspaces/project"
PLACES = Places(HOME, ("/vol/parhelia/workspaces", "/tmp"))


def command(text: str, **given: object) -> SimpleCommand:
    argv = tuple(word.replace("UNKNOWN", UNKNOWN) for word in text.split())
    program = argv[0].rpartition("/")[2] if argv else ""
    return SimpleCommand(program, argv, CWD, **given)  # type: ignore[arg-type]


def fit(match: CommandMatch, text: str, **given: object) -> str:
    return judge(match, command(text, **given), PLACES).name


@pytest.mark.parametrize(
    ("program", "fitting", "other"),
    [
        ("<shell>", "bash", "python3"),
        ("<shell>", "dash", "bashful"),
        ("<interpreter>", "python3.12", "bash"),
        ("<interpreter>", "nodejs", "npm"),
        ("git*", "git-lfs", "hg"),
    ],
)
def test_a_group_of_programs(program: str, fitting: str, other: str) -> None:
    assert fit(CommandMatch(program=(program,)), fitting) == "YES"
    assert fit(CommandMatch(program=(program,)), other) == "NO"


@pytest.mark.parametrize(
    ("subcommand", "text", "expected"),
    [
        (("s3", "rm|rb"), "aws s3 rb x", "YES"),
        (("s3", "rm|rb"), "aws s3 ls x", "NO"),
        (("*", "delete-*"), "aws iam delete-user", "YES"),
        (("*", "delete-*"), "aws iam", "NO"),
        (("s3", "rm"), "aws s3 UNKNOWN", "MAYBE"),
    ],
)
def test_subcommands_have_wildcards_and_alternatives(subcommand: tuple[str, ...], text: str, expected: str) -> None:
    assert fit(CommandMatch(program=("aws",), subcommand=subcommand), text) == expected


@pytest.mark.parametrize(
    ("options", "without", "text", "expected"),
    [
        (("force|f",), (), "git push -f", "YES"),
        (("force|f",), (), "git push --force", "YES"),
        (("force|f",), (), "git push", "NO"),
        (("force", "tags"), (), "git push --force", "NO"),
        (("force",), ("dry-run|n",), "git push --force -n", "NO"),
        (("force",), ("dry-run|n",), "git push --force", "YES"),
        ((), ("dry-run",), "git push UNKNOWN", "MAYBE"),
        (("type=mod*",), (), "x --type=module", "YES"),
        (("type=mod*",), (), "x --type module", "YES"),
        (("type=mod*",), (), "x --type other", "NO"),
        (("type=mod*",), (), "x --type=UNKNOWN", "MAYBE"),
        (("c=a|b",), (), "x -c b", "YES"),
        (("c=a|b",), (), "x -cb", "YES"),
        (("c=a|b",), (), "x -cd", "NO"),
    ],
)
def test_options_with_alternatives_and_values_and_without_others(
    options: tuple[str, ...], without: tuple[str, ...], text: str, expected: str
) -> None:
    assert fit(CommandMatch(options=options, without=without), text) == expected


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        (("--exec=*",), "x --exec=sh", "YES"),
        (("--exec=*",), "x --other", "NO"),
        (("--exec=*",), "x UNKNOWN", "NO"),
        (("--exec=*",), "x --exec=UNKNOWN", "MAYBE"),
        (("<secret>",), "x --header ghp_" + "a" * 36, "YES"),
        (("<secret>",), "x --header UNKNOWN", "NO"),
    ],
)
def test_words_are_compared_as_text(words: tuple[str, ...], text: str, expected: str) -> None:
    assert fit(CommandMatch(words=words), text) == expected


@pytest.mark.parametrize(
    ("redirects", "given", "expected"),
    [
        (("> <device>",), (">", "/dev/sda"), "YES"),
        (("> <device>",), (">>", "/dev/../dev/nvme0n1"), "YES"),
        (("> <device>",), ("<", "/dev/sda"), "NO"),
        (("> <system>",), (">", "/dev/null"), "NO"),
        (("> <system>",), ("2>", "/dev/stderr"), "NO"),
        (("> <system>",), ("&>", "/etc/passwd"), "YES"),
        (("> <system>",), ("<>", "/etc/passwd"), "YES"),
        (("> <system>",), (">&", "2"), "NO"),
        (("> <system>",), (">", "out.txt"), "NO"),
        (("> <system>",), (">", UNKNOWN), "NO"),
        (("> ~/.bashrc",), (">>", f"{HOME}/.bashrc"), "YES"),
        (("< /dev/tcp/**",), ("<>", "/dev/tcp/evil.test/1"), "YES"),
        (("> /dev/tcp/**",), (">", "/dev/tcp/evil.test/1"), "YES"),
    ],
)
def test_redirections_by_direction_and_target(
    redirects: tuple[str, ...], given: tuple[str, str], expected: str
) -> None:
    assert fit(CommandMatch(redirects=redirects), "x", redirects=(given,)) == expected


@pytest.mark.parametrize(
    ("environment", "given", "expected"),
    [
        (("LD_PRELOAD",), ("LD_PRELOAD", "x.so"), "YES"),
        (("LD_PRELOAD",), ("PATH", "x"), "NO"),
        (("LD_*",), ("LD_AUDIT", "x"), "YES"),
        (("GIT_SSH_COMMAND=*nc *",), ("GIT_SSH_COMMAND", "nc x"), "YES"),
        (("GIT_SSH_COMMAND=*nc *",), ("GIT_SSH_COMMAND", "ssh"), "NO"),
        (("GIT_SSH_COMMAND=*nc *",), ("GIT_SSH_COMMAND", UNKNOWN), "MAYBE"),
    ],
)
def test_environment_by_name_and_value(environment: tuple[str, ...], given: tuple[str, str], expected: str) -> None:
    assert fit(CommandMatch(environment=environment), "x", assignments=(given,)) == expected


def test_where_data_and_code_come_from() -> None:
    code = CommandMatch(program=("<shell>",), code_from=("curl", "wget"))
    assert fit(code, "sh", code_from=("curl", "tee")) == "YES"
    assert fit(code, "sh", piped_from=("curl",)) == "NO"
    data = CommandMatch(program=("nc",), piped_from=("cat",))
    assert fit(data, "ncat x 1", piped_from=("cat", "gzip")) == "YES"
    assert fit(data, "ncat x 1") == "NO"


SYSTEM, DEVICE, OUTSIDE, SECRET_FILE = "<system>", "<device>", "<outside>", "<secret-file>"


@pytest.mark.parametrize(
    ("named", "word", "expected"),
    [
        (SYSTEM, "/", "YES"),
        (SYSTEM, "/etc/passwd", "YES"),
        (SYSTEM, "../../../../etc", "YES"),
        (SYSTEM, "/proc/self/root/usr", "YES"),
        (SYSTEM, "/home", "YES"),
        (SYSTEM, "/home/other", "YES"),
        (SYSTEM, HOME, "NO"),
        (SYSTEM, f"{HOME}/x", "NO"),
        (SYSTEM, "~/x", "NO"),
        (SYSTEM, "/tmp", "YES"),
        (SYSTEM, "/tmp/x", "NO"),
        (SYSTEM, "/tmp/../etc", "YES"),
        (SYSTEM, "/var/tmp/x", "NO"),
        (SYSTEM, "/var/log", "YES"),
        (SYSTEM, "/dev/null", "NO"),
        (SYSTEM, "build", "NO"),
        (SYSTEM, UNKNOWN, "MAYBE"),
        (OUTSIDE, "/data", "YES"),
        (OUTSIDE, "/vol/parhelia/workspaces", "YES"),
        (OUTSIDE, "/vol/parhelia/workspaces/x", "NO"),
        (OUTSIDE, "build", "NO"),
        (OUTSIDE, HOME, "NO"),
        (DEVICE, "/dev/sda1", "YES"),
        (DEVICE, "/dev/disk/by-id/x", "YES"),
        (DEVICE, "/dev/null", "NO"),
        (DEVICE, "/dev/zero", "NO"),
        ("of=<device>", "of=/dev/sda", "YES"),
        ("of=<device>", "if=/dev/sda", "NO"),
        ("of=<device>", UNKNOWN, "MAYBE"),
        ("<home>", "~", "YES"),
        ("<home>", "~/x", "YES"),
        ("<home>", "/home/other", "NO"),
        ("<workspace>", "build", "YES"),
        ("<workspace>", "/usr", "NO"),
        ("<agent>", "/run/parhelia/x", "YES"),
        ("<agent>", "/etc/claude-code", "YES"),
        (SECRET_FILE, ".env", "YES"),
        (SECRET_FILE, "deep/er/.env.production", "YES"),
        (SECRET_FILE, ".env.example", "NO"),
        (SECRET_FILE, "~/.ssh/id_ed25519", "YES"),
        (SECRET_FILE, "~/.ssh/id_ed25519.pub", "NO"),
        (SECRET_FILE, "/proc/self/environ", "YES"),
        (SECRET_FILE, "environment.py", "NO"),
    ],
)
def test_classes_of_paths(named: str, word: str, expected: str) -> None:
    assert judge(CommandMatch(operands=(named,)), SimpleCommand("x", ("x", word), CWD), PLACES).name == expected


@pytest.mark.parametrize(
    ("named", "word", "expected"),
    [
        (SYSTEM, "/*", Fit.YES),
        (SYSTEM, "/e*", Fit.YES),
        (SYSTEM, "/tmp/*", Fit.NO),
        (SYSTEM, "/tmp/.*", Fit.NO),
        (SYSTEM, "*", Fit.NO),
        (OUTSIDE, "/tmp/.*", Fit.YES),
        (OUTSIDE, "/tmp/.?", Fit.YES),
        (OUTSIDE, "/tmp/..*", Fit.YES),
        (OUTSIDE, "/tmp/.cache*", Fit.NO),
        (OUTSIDE, "/vol/parhelia/workspaces/*", Fit.NO),
        (OUTSIDE, "/vol/*", Fit.YES),
    ],
)
def test_classes_of_paths_and_words_that_the_shell_expands(named: str, word: str, expected: Fit) -> None:
    asked = SimpleCommand("x", ("x", word), CWD, globs=(1,))
    assert judge(CommandMatch(operands=(named,)), asked, PLACES) is expected


def test_a_tree_above_a_class_is_in_it_where_the_command_is_recursive() -> None:
    match = CommandMatch(program=("rm",), options=("recursive",), operands=("<agent>",))
    assert fit(match, "rm -r /etc") == "YES"
    assert fit(match, "rm -r /home") == "NO"


def test_a_home_at_the_root_takes_nothing_out_of_the_system() -> None:
    asked = SimpleCommand("rm", ("rm", "/etc"), "/")
    assert judge(CommandMatch(operands=("<system>",)), asked, Places("/", ("/",))) is Fit.YES


HERE = "<here>"


@pytest.mark.parametrize(
    ("named", "word", "glob", "expected"),
    [
        (HERE, ".", False, "YES"),
        (HERE, CWD, False, "YES"),
        (HERE, "*", True, "YES"),
        (HERE, "./.*", True, "YES"),
        (HERE, "./**/*", True, "YES"),
        (HERE, "*.o", True, "NO"),
        (HERE, "build/*", True, "NO"),
        (HERE, "build", False, "NO"),
        (HERE, UNKNOWN, False, "MAYBE"),
        (SECRET_FILE, "*", True, "NO"),
        (SECRET_FILE, "src/*.py", True, "NO"),
        (SECRET_FILE, "*.pem", True, "YES"),
        (SECRET_FILE, "~/.ssh/*", True, "YES"),
        (SECRET_FILE, f"{UNKNOWN}/.aws/credentials", False, "YES"),
        (SECRET_FILE, UNKNOWN, False, "MAYBE"),
        ("<agent-private>", "/proc/1/environ", False, "YES"),
        ("<agent-private>", "/run/parhelia/x/public/ca.pem", False, "NO"),
    ],
)
def test_all_of_a_directory_and_what_the_known_part_of_a_word_names(
    named: str, word: str, glob: bool, expected: str
) -> None:
    asked = SimpleCommand("x", ("x", word), CWD, globs=(1,) if glob else ())
    assert judge(CommandMatch(operands=(named,)), asked, Places(HOME, PLACES.workspace, CWD)).name == expected


def test_where_the_command_was_asked_for_is_not_known_nothing_is_all_of_it() -> None:
    assert judge(CommandMatch(operands=(HERE,)), command("rm ."), Places(HOME)) is Fit.NO


@pytest.mark.parametrize(
    ("text", "expected"),
    [("cp .env x", "YES"), ("cp x .env", "NO"), ("cp", "NO"), ("cp UNKNOWN x", "MAYBE"), ("cp -p id_rsa x y", "YES")],
)
def test_a_class_of_paths_may_be_the_first_operand(text: str, expected: str) -> None:
    assert fit(CommandMatch(program=("cp",), subcommand=(SECRET_FILE,)), text) == expected


def test_a_pattern_or_a_program_text_in_front_of_files_is_no_operand() -> None:
    match = CommandMatch(program=("grep", "sed"), operands=(SECRET_FILE,))
    assert [fit(match, text) for text in ("grep .env x", "sed -n /x/.env f", "grep -e x .env")] == ["NO", "NO", "YES"]
    assert [fit(match, text) for text in ("grep -f .env x", "grep x .env", "grep --include .env x y")] == [
        "YES",
        "YES",
        "NO",
    ]


def test_the_case_of_a_programs_name_and_what_another_system_puts_behind_it_do_not_matter() -> None:
    match = CommandMatch(program=("git",), subcommand=("reset",))
    assert [fit(match, text) for text in ("GIT reset", "git.exe reset", "Git.EXE reset", "gitk reset")] == [
        "YES",
        "YES",
        "YES",
        "NO",
    ]
