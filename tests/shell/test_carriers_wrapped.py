"""Programs that run the command behind their options: found in any nesting, with the same words."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.shell.analyse import Analysis, analyse_argv, analyse_text
from agent.shell.runners import RUNNERS
from agent.shell.wrappers import WRAPPERS
from tests.shell.given import CWD, HOME

DELETE = ("rm", "-rf", "/")

SYSTEM = """
sudo
sudo -u root -E
sudo --user=root --preserve-env --
doas -u root
pkexec --user root
env
env -i A=1 B=2
env -u A --chdir=/tmp
nice -n 5
nohup
timeout -k 5 10
timeout --signal=KILL 5s
stdbuf -oL -eL
setsid -w
ionice -c2 -n7
chrt -f 10
time -p
flock -n /tmp/lock
chroot --userspec=root:root /srv
unshare -rm --fork --pid
nsenter -t 1 -m -p
nsenter --target 1 --all
setpriv --reuid=1000 --clear-groups
taskset -c 0
prlimit --nofile=10
choom -n 100 --
numactl -m 0
systemd-run --user --scope
systemd-run -p X=y --wait
systemd-inhibit --what=idle
systemd-cat -t x
strace -f -o log
strace -e trace=file -ff
ltrace -f
valgrind --leak-check=full
catchsegv
proxychains4 -q
torsocks -i
unbuffer -p
fakeroot -u --
fakechroot -e x
eatmydata
setarch -R
linux32
xvfb-run -a
dbus-run-session --
caffeinate -i
command
exec -a ls
bwrap --ro-bind / / --dev /dev --unshare-all --setenv A b
proot -r / -w /tmp
firejail --quiet --net=none
nsjail -Mo --
runcon -t x_t ctx
aa-exec -p prof --
gosu root
su-exec root:root
setuidgid nobody
chpst -u nobody
softlimit -m 100
envdir ./env
setlock lock
logsave out.log
chronic
ifne -n
tini -g --
dumb-init -c --
cpulimit -l 50 --
perf stat -e cycles
perf record -g --
rr record -n
heaptrack -o out
gtime -v
faketime '2020-01-01'
daemonize -c /tmp -p pid
ip netns exec blue
ip -n blue vrf exec red
ssh-agent -t 10
machinectl shell root@
dtach -n sock
nq -c
runuser -u nobody --
busybox
toybox
busybox nohup
/lib64/ld-linux-x86-64.so.2 --library-path /x
/lib/ld-musl-x86_64.so.1
capsh --drop=cap_sys_admin -- -c 'exec "$@"' x
""".strip().splitlines()

TOOLS = """
docker exec -it web
docker run --rm -v /:/host -e A=b alpine
docker --context x container run -d alpine
docker run --rm --entrypoint nice alpine
docker compose -f x.yml exec -T web
docker compose run --rm web
docker-compose exec web
podman run --rm alpine
nerdctl exec web
kubectl exec -it web-0 --
kubectl exec web-0 -c app -n prod --
kubectl exec web-0 -it --
kubectl -n prod run x --image=alpine --restart=Never --command --
kubectl debug node/x -it --image=alpine --
oc rsh web-0
crictl exec -it abc
ctr -n k8s.io tasks exec --exec-id x abc
runc exec abc
buildah run abc
lxc exec c1 --
incus exec c1 --
lxc-attach -n c1 --
flatpak run --command=nice org.x
toolbox run -c x
distrobox enter x --
ssh host
ssh -p 22 -o StrictHostKeyChecking=no -t user@host
autossh -M 0 host
sshpass -p x ssh host
plink -batch host
mosh host --
srun -n 4
mpirun -np 4
heroku run -a app
uv run --with x
uv tool run
uvx --from x
pipx run
poetry run
pipenv run
pdm run
conda run -n env --no-capture-output
micromamba run -n env
bundle exec
composer exec
mise exec node@20 --
mise x --
asdf exec
rbenv exec
nvm exec 20
volta run --node 20
direnv exec .
npx
npx --yes
npm exec --
npm x --
pnpm exec
pnpm dlx
yarn exec
yarn dlx
bunx
cross-env A=b
env-cmd -f .env
dotenv -e .env --
doppler run --
op run --env-file=x --
aws-vault exec prof --
nix shell nixpkgs#x -c
nix develop --command
guix shell x --
xterm -e
gnome-terminal --
alacritty -e
kitty --hold
screen -dmS x
entr -r
gdbserver localhost:1
cmake -E env A=b
cmake -E time
gdb -batch -ex run --args
just --command
git bisect run
""".strip().splitlines()


def understood(text: str) -> Analysis:
    return analyse_text(text, cwd=CWD, home=HOME)


def words_of(analysis: Analysis) -> list[tuple[str, ...]]:
    return [command.argv for command in analysis.commands]


@pytest.mark.parametrize("outer", SYSTEM + TOOLS)
def test_what_it_runs_is_found(outer: str) -> None:
    found = understood(f"{outer} nice rm -rf /")
    if " nice " in f"{outer} " and ("entrypoint" in outer or "command=" in outer):
        found = understood(f"{outer} rm -rf /")
    assert DELETE in words_of(found), found


BUILTINS = ("command", "exec")
"""No program: nobody executes them."""


@pytest.mark.parametrize("outer", [outer for outer in SYSTEM + TOOLS if shlex.split(outer)[0] not in BUILTINS])
def test_an_exec_of_it_is_found_too(outer: str) -> None:
    argv = (*shlex.split(outer), "rm", "-rf", "/")
    assert DELETE in words_of(analyse_argv(argv, exe=None, cwd=CWD, home=HOME))


@pytest.mark.parametrize(
    "text",
    [
        "su -c 'rm -rf /'",
        "su - root -c 'rm -rf /'",
        "runuser - nobody -c 'rm -rf /'",
        "sg group -c 'rm -rf /'",
        "watch -n1 rm -rf /",
        "script -qc 'rm -rf /' /dev/null",
        "flock /tmp/l -c 'rm -rf /'",
        "npm exec -c 'rm -rf /'",
        "npx -c 'rm -rf /'",
        "uv run sh -c 'rm -rf /'",
        "nix-shell -p x --run 'rm -rf /'",
        "tmux new -d 'rm -rf /'",
        "tmux split-window -h 'rm -rf /'",
        "watchexec -e py 'rm -rf /'",
        "asciinema rec -c 'rm -rf /' x",
        "vagrant ssh -c 'rm -rf /'",
        "gcloud compute ssh vm --command='rm -rf /'",
        "aws ecs execute-command --command 'rm -rf /' --interactive",
        "fly ssh console -C 'rm -rf /'",
        "bazel run --run_under='rm -rf /' //x",
        "pdsh -w h1,h2 'rm -rf /'",
        "entr -s 'rm -rf /'",
        "pee 'rm -rf /' cat",
        "capsh -- -c 'rm -rf /'",
        "docker run --rm --entrypoint sh alpine -c 'rm -rf /'",
        "echo / | xargs rm -rf",
        "printf '/\\0' | xargs -0 -n1 rm -rf",
        "echo / | xargs -I{} rm -rf {}",
        "start-stop-daemon --start --exec rm -- -rf /",
        "systemd-run --on-active=5 sh -c 'rm -rf /'",
        "mpirun -np 4 sh -c 'rm -rf /'",
        "watch -x sh -c 'rm -rf /'",
        "parallel --dry-run x ::: a; parallel rm -rf ::: /",
        "parallel awk 'BEGIN { system(\"rm -rf /\") }' ::: ok",
        "cross-env-shell A=b 'rm -rf /'",
        "concurrently 'npm start' 'rm -rf /'",
        "pwsh -c 'rm -rf /'",
        "csh -c 'rm -rf /'",
        "su -s /bin/sh -c 'rm -rf /' nobody",
    ],
)
def test_text_that_it_gives_to_a_shell_is_found(text: str) -> None:
    assert DELETE in words_of(understood(text)), understood(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sudo --unheard-of x", "sudo has an option that is not known"),
        ("bwrap --unheard-of x y", "bwrap has an option that is not known"),
        ("docker run --unheard-of x y", "docker has an option that is not known"),
        ("timeout $X ls", "timeout has an option that is not known"),
        ('find . "$X"', "find has an expression that is not known"),
        ("parallel -a list", "a shell runs text that is not known"),
        ("xargs --unheard-of rm", "xargs has an option that is not known"),
    ],
)
def test_an_option_that_is_not_known_is_said(text: str, reason: str) -> None:
    assert reason in (understood(text).unverifiable or ""), understood(text)


@pytest.mark.parametrize(
    "text",
    [
        "parallel --dry-run rm -rf {} ::: /",
        "parallel --version",
        "parallel --help",
        "docker ps -a",
        "docker compose up -d rm",
        "kubectl get pods rm",
        "npm run rm",
        "poetry add rm",
        "ip addr show rm",
        "git config --get alias.rm",
        "command -v rm",
        "nix build .#rm",
    ],
)
def test_what_runs_nothing_is_not_taken_for_a_wrapper(text: str) -> None:
    found = understood(text)
    assert found.unverifiable is None
    assert len(found.commands) == 1, found


_PREFIXES = [line for line in SYSTEM if not line.startswith(("time", "capsh", "machinectl"))]
_WORD = st.text(alphabet="abcxyz019/._-= $'\"*;|&#{}", min_size=1, max_size=8).filter(lambda word: word[0] not in "-=")


@given(st.lists(st.sampled_from(_PREFIXES), min_size=1, max_size=4), st.lists(_WORD, max_size=4))
@settings(max_examples=250, deadline=None)
def test_any_nesting_leaves_the_words_as_they_are(outers: list[str], operands: list[str]) -> None:
    argv = ("zzmark", *operands)
    found = understood(" ".join([*outers, shlex.join(argv)]))
    assert argv in words_of(found), found


@given(
    st.lists(
        st.sampled_from(["sh -c", "bash -lc", "eval", "su -c", "watch -x sh -c", "ssh host", "tmux new"]),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=100, deadline=None)
def test_any_nesting_of_text_leaves_the_words_as_they_are(outers: list[str]) -> None:
    text = "zzmark 'a b' c"
    for outer in outers:
        text = f"{outer} {shlex.quote(text)}"
    assert ("zzmark", "a b", "c") in words_of(understood(text))


def test_every_row_names_its_program_and_is_read_without_a_fault() -> None:
    for name in (*WRAPPERS, *RUNNERS):
        for rest in ("", "--", "-x", "--x=1 a b", "exec run a b c"):
            analyse_argv((name, *rest.split()), exe=None, cwd=CWD, home=HOME)
