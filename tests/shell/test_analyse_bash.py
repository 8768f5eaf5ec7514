"""Against bash itself: every `rm` that bash really runs was foreseen, or the text was called unverifiable.

`rm` is a stub that notes its words; PATH holds nothing that could do harm; each text runs in a directory of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.policy.request import UNKNOWN, SimpleCommand
from tests.conftest import require
from tests.shell.given import HOME, request

_TOOLS = (
    "cat env xargs sh bash nice nohup timeout find tee base64 sed awk python3 perl tr rev flock setsid stdbuf sleep"
)
_STUB = '#!/bin/sh\n{ printf X; for a in "$@"; do printf "%s\\037" "$a"; done; printf "\\n"; } >> "$RMLOG"\n'

TEXTS = r"""
r\⏎m -rf /x
"r"m -r'f' /x
$'\x72m' -rf /x
builtin command rm /x
eval rm '"/x y"'
bash -xc 'rm "$1"' _ /x
sh -c 'rm $0' /x
env -S 'rm -rf' /x
env - PATH="$PATH" RMLOG="$RMLOG" rm /x
nice -5 rm /x
timeout -k 5 10 rm /x
printf '%s\n' /x /y | xargs rm
printf '/x\0' | xargs -0 rm
echo /x | xargs -I{} rm {}
printf 'rm %s\n' /x | sh
cat <<EOF | sh⏎rm /x⏎EOF
sh <<'EOF'⏎rm $HOME⏎EOF
bash < <(echo rm /x)
source <(echo rm /x)
. /dev/stdin <<< 'rm /x'
x='rm /x'; $x
x=r; x+=m; $x /x
x=r; y=${x}m; $y /x
a=(rm /x); "${a[@]}"
set -- rm /x; "$@"
f() { "$@"; }; f rm /x
f() ( rm /x ); f
f() { local x=rm; $x /x; }; f
f() { g; }; g() { rm /x; }; f
f() { rm /x; } > o; f
for i in rm; do $i /x; done
while read -r l; do rm "$l"; done <<< /x
case $HOME in *) rm /x;; esac
case $(rm /x) in *) ;; esac
case a in a) rm /x;;& *) rm /y;& c) rm /z;; esac
((1)) && rm /x
time { rm /x; }
time (rm /x)
! { rm /x; }
! if true; then rm /x; fi
coproc N { rm /x; }; wait
time for i in a; do rm /x; done
echo "`rm /x`"
echo "`echo \`rm /x\``"
echo ${x:-`rm /x`}
echo "${x:-`rm /x`}"
cat <<E⏎${x:-`rm /x`}⏎E
cat <<E⏎`rm /x` and `rm /y`⏎E
cat <<E⏎$(rm /x)⏎E
cat <<\E⏎`⏎E⏎rm /x
cat <<"E"⏎'⏎E⏎rm /x
cat<<E;rm /x⏎a⏎E
cat <<E1 <<E2⏎a⏎E1⏎b⏎E2⏎rm /x
cat <<E && rm /x⏎a⏎E
rm <<E /x⏎foo⏎E
rm 2>/dev/null -rf /x >o y
true && rm 2>/dev/null -rf /x
! rm 2>/dev/null -rf /x
true | bash <<E⏎rm /x⏎E
a[$(rm /x; echo 1)]=2
echo ${a[$(rm /x; echo 1)]}
x='a[$(rm /x)]'; ((x))
x='a['; y='$(rm /x)]'; (( $x$y ))
x=$'a[\x24(rm /x)]'; (( x ))
f() { (( x = $1 )); }; f 'a[$(rm /x)]'
[ -v 'a[$(rm /x)]' ]
[[ -v 'a[$(rm /x)]' ]]
[[ 'a[$(rm /x)]' -eq 0 ]]
y=abc; x='a[$(rm /x)]'; echo ${y:x:1}
y=(a b); x='a[$(rm /x)]'; echo ${y[x]}
y=(a b); x='a[$(rm /x)]'; y[x]=3
x='a[$(rm /x)]'; y=([x]=3)
printf -v 'a[$(rm /x)]' x
printf -v x 'a[%s(rm /x)]' '$'; (( x ))
declare -a 'a=($(rm /x))'
declare -A 'a=([$(rm /x)]=1)'
declare -i x; x+='a[$(rm /x)]'
declare -i x; read x <<< 'a[$(rm /x)]'
declare -i x; for x in 'a[$(rm /x)]'; do :; done
declare -n r='a[$(rm /x)]'; echo $r
n='a[$(rm /x)]'; echo "${!n:-x}"
bash -c 'printf -v "$1" x' _ 'a[$(rm /x)]'
set -- '$(rm /x)'; echo "${1@P}"
x=('$(rm /x)'); echo "${x[@]@P}"
echo | mapfile -C 'rm /x #' -c 1
readarray -C'rm /x #' -c1 x < /etc/passwd
compgen -C 'rm /x #'
compgen -W '$(rm /x)'
f() { rm /x; }; compgen -F f
history -s 'rm /x'; fc -s
hash -p "$(type -P rm)" ls; ls /x
BASH_CMDS[ls]=$(type -P rm); ls /x
exec <<< 'rm /x'; bash
coproc bash; echo 'rm /x' >&${COPROC[1]}; exec {COPROC[1]}>&-; wait
echo 'rm /x' > f & wait; . ./f
a=([1]=rm); ${a[1]} /x
echo 'rm $1' | bash -s -- /x
env a.b=1 rm /x
env 'BASH_FUNC_ls%%=() { rm /x; }' bash -c ls
shopt -s expand_aliases⏎alias a=b b='rm /x'⏎a
shopt -s expand_aliases⏎alias then='then rm /x;'⏎if true; then echo; fi
shopt -s expand_aliases⏎BASH_ALIASES[x]='rm /x'⏎x
test -v 'a[$(rm /x)]'
PS4='$(rm /x)'; set -x; true
echo $(( $(rm /x; echo 1) + 1 ))
[[ $(rm /x) ]]
echo a 2>`rm /x; echo b`
rm {/x,/y}
rm /{a,b{c,d}}
{rm,/x}
rm $HOME/../x
cd /tmp; rm *
rm *.txt
rm [ab].txt
true # comment \⏎rm /x
echo a\⏎#; rm /x
echo 'a\'; rm /x
echo \"; rm /x; echo \"
echo $'a\'b'; rm /x
echo "${x#"a"}"; rm /x
echo ${x%%'}'}; rm /x
echo "$(echo ")")"; rm /x
echo $(case a in a) rm /x;; esac)
: ${x:=rm}; $x /x
${x:-rm} /x
x=1; ${x:+rm} /x
IFS=,; x=rm,/x; $x
$(printf 'r\155') /x
"$(printf rm)" /x
echo cm0gL3g= | base64 -d | sh
sh -c "$(printf '\x72\x6d /x')"
read x <<< rm; $x /x
printf -v x rm; $x /x
x=rm; y=x; ${!y} /x
declare -n y=x; x=rm; $y /x
shopt -s expand_aliases⏎alias q='rm /x'⏎q
{ echo 'rm /x'; } | sh
for i in rm; do echo "$i /x"; done | sh
echo rm /x | xargs env
flock ./lock -c 'rm /x'
trap 'rm /x' EXIT
x=ls; if true; then x=rm; fi; $x /x
x=ls; f() { x=rm; }; f; $x /x
x=ls; for i in 1 2; do $x /x; x=rm; done
x=ls; eval x=rm; $x /x
python3 -c 'import os; os.system("rm /x")'
python3 -c "import subprocess as s; s.call('rm /x', shell=True)"
python3 -c 'from os import system as q; q("rm /x")'
python3 -c 'import os; os.execvp("rm",["rm","/x"])'
python3 -c "import os; c='rm /x'; os.system(c)"
python3 -c "import os; getattr(os,'system')('rm /x')"
python3 <(echo 'import os; os.system("rm /x")')
perl -e 'system "rm", "/x"'
perl -e 'qx{rm /x}'
perl -e 'system(qw(rm /x))'
awk 'BEGIN{print "x" | "rm /x"}'
awk -f <(echo 'BEGIN{system("rm /x")}')
""".strip().splitlines()


def ran(text: str, place: Path) -> list[tuple[str, ...]]:
    """The words of every rm that bash ran."""
    tools, log, work = place / "bin", place / "log", place / "work"
    tools.mkdir()
    work.mkdir()
    log.touch()
    (tools / "rm").write_text(_STUB)
    (tools / "rm").chmod(0o755)
    for tool in _TOOLS.split():
        found = shutil.which(tool, path="/usr/bin:/bin")
        if found is not None:
            (tools / tool).symlink_to(found)
    for name in ("a.txt", "b.txt"):
        (work / name).touch()
    subprocess.run(
        ["/bin/bash", "--norc", "-c", text],
        env={"PATH": str(tools), "RMLOG": str(log), "HOME": HOME, "LANG": "C.UTF-8"},
        cwd=work,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    return [tuple(line[1:].split("\x1f")[:-1]) for line in log.read_text().splitlines() if line]


def foresaw(command: SimpleCommand, words: tuple[str, ...]) -> bool:
    """Do the words of `command`, unknown parts and globs allowed for, describe `words`?"""
    spelled = []
    for index, word in enumerate(command.argv[1:], 1):
        if word == UNKNOWN:
            spelled.append("(?:[^\x1f]*\x1f)*")
            continue
        expression = re.escape(word).replace(re.escape(UNKNOWN), ".*")
        if index in command.globs:
            one = re.sub(r"\\\[.*?\\\]", ".", expression).replace(r"\*", "[^/]*").replace(r"\?", ".")
            spelled.append(f"(?:{one}\x1f)*")
        else:
            spelled.append(f"{expression}\x1f")
    return re.fullmatch("".join(spelled), "".join(f"{word}\x1f" for word in words), re.DOTALL) is not None


@pytest.mark.parametrize("text", TEXTS)
def test_every_rm_that_bash_runs_was_foreseen(text: str, tmp_path: Path) -> None:
    missing = [tool for tool in ("bash", *_TOOLS.split()) if shutil.which(tool, path="/usr/bin:/bin") is None]
    require(not missing, f"not installed: {missing}")
    text = text.replace("⏎", "\n")
    executed = ran(text, tmp_path)
    assert executed, "bash ran no rm: the case shows nothing"
    asked = request(text, cwd=str(tmp_path / "work"))
    found = [command for command in asked.commands if command.program == "rm"]
    missed = [words for words in executed if not any(foresaw(command, words) for command in found)]
    assert not missed or asked.unverifiable is not None


def test_the_stub_sees_what_bash_runs(tmp_path: Path) -> None:
    require(os.access("/bin/bash", os.X_OK), "no bash")
    assert ran("rm -rf '/a b' c", tmp_path) == [("-rf", "/a b", "c")]


@pytest.mark.parametrize(
    "text",
    [
        "ls; ls",
        "if true; then ls; fi",
        "f() { ls; }",
        "a=(1 2)",
        "cat <<E\nx\nE",
        "ls |",
        "if ls",
        "(ls",
        "'ls",
        "ls )",
    ],
)
def test_what_bash_cannot_parse_is_not_allowed_and_what_it_can_is_understood(text: str) -> None:
    require(os.access("/bin/bash", os.X_OK), "no bash")
    valid = (
        subprocess.run(["/bin/bash", "-n", "-c", text], capture_output=True, timeout=60, check=False).returncode == 0
    )
    assert (request(text).unverifiable is None) is valid
