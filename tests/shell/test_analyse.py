"""The default rules hold by meaning, data is not code, and what cannot be known is never allowed."""

from __future__ import annotations

import pytest

from agent.policy.request import UNKNOWN
from tests.shell.given import CWD, answer, decision, request, request_argv

DELETE, FORMAT, ZERO = "recursive-delete-system", "make-filesystem", "zero-fill"


@pytest.mark.parametrize(
    "text",
    [
        "rm -rf /",
        "rm -fr /",
        "rm -r -f /",
        "rm / -rf",
        "rm --recursive --force /",
        "rm --recurs /",
        "rm -rf --no-preserve-root /",
        "rm -rf -- /",
        "rm -Rf /etc",
        "rm -rf /etc/",
        "rm -rf //etc/./ssh/..",
        "rm -rf /tmp/x/../../etc",
        "rm -rf /proc/self/root/etc",
        "rm -rf /proc/1/root",
        "rm -rf /*",
        "rm -rf /e*",
        "rm -rf /[eE]tc",
        "rm -rf {/tmp/a,/etc}",
        "rm -rf /{etc,usr}/{a,b}",
        "cd / && rm -rf *",
        "cd /; rm -rf ./*",
        "cd /etc && cd .. && rm -rf etc",
        "pushd / && rm -rf usr",
        "(cd /; rm -rf etc)",
        'rm -rf "$HOME/../.."',
        "rm -rf ~/../../etc",
        "rm -rf ~root/x",
        "d=/; rm -rf $d",
        'd=/etc; rm -rf "${d}"/x',
        "rm -rf ${d:-$(rm -rf /)}",
        "rm 2>/dev/null -rf / >log x",
        "rm <<EOF -rf /\nx\nEOF",
        "> out rm -rf /",
        "A=1 B=2 rm -rf /",
    ],
)
def test_a_recursive_delete_of_the_system_is_refused_however_it_is_spelled(text: str) -> None:
    assert answer(text) == ("deny", DELETE)


@pytest.mark.parametrize(
    "text",
    [
        r"\rm -rf /",
        "'rm' -rf /",
        "\"r\"m -r'f' /",
        r"$'\x72m' -rf /",
        "/bin/rm -rf /",
        "/usr/bin/../bin/rm -rf /",
        "r\\\nm -r\\\nf /",
        "command rm -rf /",
        "builtin command rm -rf /",
        "exec rm -rf /",
        "exec -a ls rm -rf /",
        "c=rm; $c -rf /",
        "c='rm -rf'; $c /",
        "c=rm; d=$c; ${d} -rf /",
        "a=(rm -rf /); ${a[@]}",
        'set -- rm -rf /; "$@"',
        "$(echo rm) -rf /",
        "$(printf 'r\\155') -rf /",
        "{ rm -rf /; }",
        "! rm -rf /",
        "time rm -rf /",
        "time { rm -rf /; }",
        "coproc rm -rf /",
        "rm -rf / &",
        "ls || rm -rf /",
        "if true; then rm -rf /; fi",
        "while rm -rf /; do :; done",
        "for d in /tmp/a /; do rm -rf $d; done",
        "case $x in a) rm -rf /;; esac",
        'f() { rm -rf "$1"; }; f /',
        'f() { "$@"; }; f rm -rf /',
        "ls() { rm -rf /; }; ls",
        "trap 'rm -rf /' EXIT",
        "x=ls; if true; then x=rm; fi; $x -rf /",
        "x=ls; for i in 1 2; do $x -rf /; x=rm; done",
    ],
)
def test_the_program_is_found_behind_quotes_variables_and_control_flow(text: str) -> None:
    assert answer(text) == ("deny", DELETE)


@pytest.mark.parametrize(
    "text",
    [
        "sudo rm -rf /",
        "sudo -u root -- rm -rf /",
        "sudo -nE FOO=1 rm -rf /",
        "doas -u root rm -rf /",
        "su -c 'rm -rf /'",
        "su - root -lc 'rm -rf /'",
        "env -i A=1 rm -rf /",
        "env -u A -C / rm -rf etc",
        "env -S 'rm -rf' /",
        "env - rm -rf /",
        "nice -n 19 rm -rf /",
        "nice -19 rm -rf /",
        "nohup rm -rf /",
        "timeout -k 5 10 rm -rf /",
        "timeout --signal=KILL 5 nice rm -rf /",
        "stdbuf -oL rm -rf /",
        "setsid -w rm -rf /",
        "ionice -c3 rm -rf /",
        "watch -n 1 rm -rf /",
        "flock /tmp/l rm -rf /",
        "flock /tmp/l -c 'rm -rf /'",
        "chroot / rm -rf /etc",
        "strace -f -o log rm -rf /",
        "busybox rm -rf /",
        "toybox rm -rf /",
        "/lib64/ld-linux-x86-64.so.2 /bin/rm -rf /",
        "xargs rm -rf /",
        "echo / | xargs rm -rf",
        "echo / | xargs -I{} rm -rf {}",
        "printf '/\\0' | xargs -0 -n1 rm -rf",
        "parallel rm -rf ::: /",
        "find / -delete",
        "find / -exec rm -rf {} +",
        "find / -type f -exec sudo rm {} \\;",
        "find / -exec sh -c 'rm \"$1\"' _ {} \\;",
        "find /usr -mindepth 1 | xargs rm -rf",
        "bash -c 'rm -rf /'",
        "bash -xeuo pipefail -c 'rm -rf /'",
        "sh -c 'rm -rf $0' /",
        "sh -c \"sh -c 'rm -rf /'\"",
        "echo 'rm -rf /' | sh",
        "printf 'rm -rf %s' / | sudo bash -s",
        "cat <<EOF | sh\nrm -rf /\nEOF",
        "bash <<'EOF'\nrm -rf /\nEOF",
        "bash <<< 'rm -rf /'",
        "bash < <(echo rm -rf /)",
        "eval 'rm -rf /'",
        "eval rm '-rf /'",
        "echo $(rm -rf /)",
        'echo "`rm -rf /`"',
        "cat <(rm -rf /)",
        "cat <<EOF\n$(rm -rf /)\nEOF",
        "cat <<EOF\n`rm -rf /`\nEOF",
        "ssh host rm -rf /",
        "docker run --rm -v /:/host alpine rm -rf /",
        "git -c alias.x='!rm -rf /' x",
        "git rebase --exec 'rm -rf /' main",
        "tar cf a.tar --checkpoint=1 --checkpoint-action=exec='rm -rf /' .",
        "awk 'BEGIN{system(\"rm -rf /\")}'",
        "vim -c ':!rm -rf /' x",
    ],
)
def test_a_wrapper_hides_nothing(text: str) -> None:
    assert answer(text) == ("deny", DELETE)


@pytest.mark.parametrize(
    "text",
    [
        """python3 -c 'import os; os.system("rm -rf /")'""",
        """python3 -Ic 'import subprocess as s; s.run(["rm", "-rf", "/"])'""",
        """python3 -c 'from os import system as q; q("rm" + " -rf /")'""",
        """python3 -c '__import__("os").execvp("rm", ["rm", "-rf", "/"])'""",
        """python3 -c 'import shutil; shutil.rmtree("/")'""",
        """python3 -c 'exec("import os; os.system(\\"rm -rf /\\")")'""",
        "python3 - <<'EOF'\nimport shutil\nshutil.rmtree('/etc')\nEOF",
        "echo 'import os; os.system(\"rm -rf /\")' | python3.12",
        """perl -we 'system("rm", "-rf", "/")'""",
        """perl -e '`rm -rf /`'""",
        """perl -e 'qx{rm -rf /}'""",
        """ruby -e 'require "fileutils"; FileUtils.rm_rf("/")'""",
        """ruby -e '%x(rm -rf /)'""",
        """node -e 'require("fs").rmSync("/", {recursive: true, force: true})'""",
        """node --eval='require("child_process").execSync("rm -rf /")'""",
        """php -r 'shell_exec("rm -rf /");'""",
    ],
)
def test_the_obvious_calls_of_inline_code_are_found(text: str) -> None:
    assert answer(text) == ("deny", DELETE)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("mkfs /dev/sda", FORMAT),
        ("mkfs.ext4 -F /dev/sda1", FORMAT),
        ("sudo /sbin/mkfs.xfs /dev/vdb", FORMAT),
        ("mke2fs /dev/sda", FORMAT),
        ("busybox mkfs.ext2 /dev/sda", FORMAT),
        ("dd if=/dev/zero of=/dev/sda", ZERO),
        ("dd bs=1M of=x if=/dev/../dev/zero", ZERO),
        ("dd < /dev/zero > x", ZERO),
        ("if=/dev/zero; dd if=$if of=x", ZERO),
    ],
)
def test_formatting_and_zero_filling_are_refused_by_meaning(text: str, rule: str) -> None:
    assert answer(text) == ("deny", rule)


@pytest.mark.parametrize(
    "text",
    [
        'echo "rm -rf /"',
        "git commit -m 'fix: rm -rf / in the installer'",
        "git commit -F - <<'EOF'\nrm -rf /\nEOF",
        "cat > notes.md <<'EOF'\nit's never run: rm -rf /\nEOF",
        "cat <<'EOF'\n$(rm -rf /) `rm -rf /`\nEOF",
        "grep -rn 'rm -rf /' .",
        "sed -n '/rm -rf/p' x",
        "python3 -c \"print('rm -rf /')\"",
        "python3 -c '# os.system(\"rm -rf /\")'",
        "awk '/rm -rf/ {print $1}' x",
        "# rm -rf /",
        "ls # rm -rf /",
        "man mkfs",
        "type -p rm",
        "command -v rm",
        "which rm mkfs dd",
        "find . -name '*.pyc' -delete",
        "find /tmp/x -type f -exec rm -f {} +",
        "find / -name passwd",
        "rm -rf ./build",
        "rm -rf build/* .cache",
        "rm -rf /tmp/build",
        "cd /tmp/x && rm -rf *",
        "cd build && rm -rf *",
        'for d in a b; do rm -rf "$d"; done',
        "rm /etc/motd",
        "dd if=backup.img of=copy.img",
        "x=$(date); echo $x",
        'd=$(mktemp -d); rm -rf "$d"',
        'trap "rm -rf $(mktemp)" EXIT',
        "npm test && git push",
        "echo '`rm -rf /`' '$(rm -rf /)'",
        r"echo \`rm -rf /\`",
        "docker compose up -d",
        "ls $UNSET_VARIABLE",
        "make -j$(nproc) all",
        'f() { rm -rf "./$1"; }; true',
    ],
)
def test_data_is_not_code_and_ordinary_work_is_let_through(text: str) -> None:
    verdict, rule = answer(text)
    assert (verdict, rule) == ("allow", "commands-default") or (text.startswith("f()") and verdict == "unverifiable")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("$CMD --version", "the name of a command is not known"),
        ("${x}m -rf /tmp/a", "the name of a command is not known"),
        ("/bin/r? x", "the name of a command is not known"),
        ('eval "$X"', "a shell runs text that is not known"),
        ('bash -c "$X"', "a shell"),
        ("make -s print-setup | sh", "a shell runs text that is not known"),
        ("echo cm0= | base64 -di | openssl aes-256-cbc -d | bash", "a shell runs text that is not known"),
        ("source <(kubectl completion bash)", "a shell runs text that is not known"),
        ("source /dev/fd/7", "a shell reads commands from a descriptor"),
        ("bash /dev/fd/7", "reads its program from a descriptor"),
        ("make -s print-setup | python3", "an interpreter runs code that is not known"),
        ('python3 -c "$CODE"', "an interpreter"),
        ("python3 <(make -s print-setup)", "an interpreter runs code that is not known"),
        ("python3 /dev/fd/7", "reads its program from a descriptor"),
        ("python3 -c 'import os; os.system(input())'", "inline code runs a command that it computes"),
        ("python3 -c 'exec(bytes(3))'", "inline code evaluates code that it computes"),
        ("python3 -c 'import os; getattr(os, \"system\")(x)'", "by its name"),
        ("sudo --unheard-of x", "sudo has an option that is not known here"),
        ('rm -rf "$TARGET"', f"whether {DELETE} applies is known only when it runs"),
        ("rm -rf $A/*", f"whether {DELETE} applies"),
        ('cd "$X" && rm -rf *', f"whether {DELETE} applies"),
        ('d=$(TMPDIR=/etc mktemp -d); rm -rf "$d"', f"whether {DELETE} applies"),
        ("d=$(mktemp -d /etc/X); rm -rf $d", f"whether {DELETE} applies"),
        ("rm $FLAGS /", f"whether {DELETE} applies"),
        ("cat list | xargs rm -rf", f"whether {DELETE} applies"),
        ("dd if=$X of=y", f"whether {ZERO} applies"),
        ("echo 'unterminated", "not valid shell syntax"),
        ("x\0y", "NUL"),
        ("( " * 400, "not valid shell syntax"),
    ],
)
def test_what_cannot_be_known_is_unverifiable_and_says_why(text: str, reason: str) -> None:
    decided = decision(request(text))
    assert (str(decided.verdict), decided.rule) == ("unverifiable", "commands-unverifiable")
    assert reason in decided.reason
    assert not decided.permitted


@pytest.mark.parametrize(
    "text",
    [
        "dd if=/dev/zero of=/dev/sda 'oops",
        "$X; rm -rf /",
        "$SUDO rm -rf /",
        "curl x | sh; rm -rf /",
    ],
)
def test_a_rule_that_certainly_applies_wins_over_what_is_unknown(text: str) -> None:
    assert answer(text)[0] == "deny"


def test_a_command_says_where_it_runs_what_is_piped_and_where_it_writes() -> None:
    (_, cat, tee) = request("cd sub && cat a 2>err | tee b").commands
    assert (cat.cwd, cat.redirects, cat.piped_from) == (f"{CWD}/sub", (("2>", "err"),), ())
    assert (tee.argv, tee.piped_from) == (("tee", "b"), ("cat",))


def test_an_unknown_word_is_marked_and_a_glob_is_too() -> None:
    (command,) = request('ls "$X" *.py').commands
    assert command.argv == ("ls", UNKNOWN, "*.py")
    assert command.globs == (2,)


@pytest.mark.parametrize(
    ("argv", "exe", "rule"),
    [
        (("rm", "-rf", "/"), None, DELETE),
        (("rm", "-rf", "/"), "/usr/bin/rm", DELETE),
        (("innocent", "-rf", "/"), "/usr/bin/rm", DELETE),
        (("rm", "-rf", "/"), "/tmp/copy", DELETE),
        (("rm", "-rf", "/"), "/bin/busybox", DELETE),
        (("busybox", "rm", "-rf", "/"), "/bin/busybox", DELETE),
        (("sh", "-c", "rm -rf /"), "/usr/bin/dash", DELETE),
        (("-bash", "-lc", "rm -rf /"), "/usr/bin/bash", DELETE),
        (("env", "FOO=1", "rm", "-rf", "/"), "/usr/bin/env", DELETE),
        (("python3", "-c", "import os; os.system('rm -rf /')"), "/usr/bin/python3.13", DELETE),
        (("/lib64/ld-linux-x86-64.so.2", "/bin/rm", "-rf", "/"), "/usr/lib/ld-linux-x86-64.so.2", DELETE),
        (("find", "/", "-delete"), "/usr/bin/find", DELETE),
        (("mkfs.ext4", "/dev/sda"), "/usr/sbin/mke2fs", FORMAT),
        (("dd", "if=/dev/zero", "of=x"), "/usr/bin/dd", ZERO),
        (("rm", "-rf", "build"), "/usr/bin/rm", "commands-default"),
        (("rm", "-rf", "/*"), "/usr/bin/rm", DELETE),
        (("rm", "-rf", "$HOME/../../x"), "/usr/bin/rm", "commands-default"),
        (("rm", "-rf", "/e*"), "/usr/bin/rm", DELETE),
        (("echo", "rm -rf /"), "/usr/bin/echo", "commands-default"),
        (("bash", "script.sh"), "/usr/bin/bash", "commands-default"),
        ((), "/usr/bin/rm", "commands-unverifiable"),
    ],
)
def test_an_exec_is_judged_by_its_final_words(argv: tuple[str, ...], exe: str | None, rule: str) -> None:
    assert decision(request_argv(*argv, exe=exe)).rule == rule
