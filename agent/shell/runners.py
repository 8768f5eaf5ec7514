"""Programs that run another program elsewhere or in an environment of a developer's tool: containers, other hosts,
package managers, version managers, terminals.

Rules: as in `agent.shell.wrappers`, whose language the rows are written in. What runs in a container or on another host
is judged as if it ran here: it is the session that asks for it. Sources: the programs' manual pages and ``--help``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from agent.shell.wrappers import Wrapper
from agent.values import replace

_CONTAINER_LONG = (
    "detach detach-keys= env= env-file= interactive privileged tty user= workdir= rm name= volume= mount="
    " network= net= publish= publish-all entrypoint= platform= pull= restart= label= label-file= hostname="
    " add-host= cap-add= cap-drop= security-opt= memory= memory-swap= cpus= cpu-shares= cpuset-cpus= gpus="
    " device= init read-only tmpfs= ulimit= pid= pids-limit= ipc= uts= userns= shm-size= dns= dns-search="
    " log-driver= log-opt= quiet expose= link= ip= annotation= cgroupns= cgroup-parent= cidfile= stop-signal="
    " stop-timeout= sysctl= volumes-from= latest runtime= attach= group-add= health-cmd= no-healthcheck"
    " mac-address= network-alias= domainname= tls oom-kill-disable host= context= config= log-level= debug"
    " replace pod= arch= os= secret= timezone= systemd= namespace="
)
_CONTAINER = Wrapper(
    "dite:u:w:v:p:h:l:m:c:qH:Pa:D",
    _CONTAINER_LONG,
    skip=1,
    subcommand=("exec", "run", "container exec", "container run", "create", "container create"),
    program_options=("entrypoint",),
)
_COMPOSE_LONG = (
    "file= project-name= profile= env-file= project-directory= parallel= ansi= progress= compatibility detach env="
    " index= no-TTY no-tty privileged tty interactive user= workdir= build cap-add= cap-drop= entrypoint= name= no-deps"
    " publish= pull= quiet quiet-pull quiet-build remove-orphans rm service-ports use-aliases volume= label="
)
_COMPOSE = Wrapper(
    "f:p:de:Tu:w:itv:l:Pq",
    _COMPOSE_LONG,
    skip=1,
    subcommand=("exec", "run"),
    program_options=("entrypoint",),
)
_COMPOSE_PLUGIN = replace(_COMPOSE, subcommand=("compose exec", "compose run"))
_CLUSTER = Wrapper(
    "itn:c:f:s:qv:",
    "namespace= container= stdin tty context= cluster= kubeconfig= filename= quiet pod-running-timeout= server= user="
    " as= token= request-timeout=",
    skip=1,
    late=True,
    subcommand=("exec", "rsh"),
    lenient=True,
)
_CLUSTER_RUN = Wrapper("itn:c:f:s:qv:l:", "", behind=("--",), subcommand=("run", "debug", "exec"), lenient=True)
_REMOTE = Wrapper(
    "46AaCfGgKkMNnqsTtVvXxYyB:b:c:D:E:e:F:I:i:J:L:l:m:O:o:P:p:Q:R:S:W:w:",
    "",
    skip=1,
    late=True,
    text=True,
    starts_shell=("",),
    no_shell=tuple("NfWOQVG"),
)
_HOSTS = Wrapper(
    "h:H:l:t:o:e:p:O:A:iPvw:x:g:a:f:u:n:bNSsRdB",
    "hosts= host= user= par= timeout= options= outdir= inline group=",
    text=True,
    lenient=True,
)
_TMUX = (
    *("new", "new-session", "neww", "new-window", "splitw", "split-window", "run", "run-shell", "respawn-pane"),
    *("respawnp", "respawn-window", "respawnw", "if", "if-shell", "pipe-pane", "pipep", "popup", "display-popup"),
    *("send", "send-keys"),
)
_BEHIND_DASHES = Wrapper("", "", behind=("--",), lenient=True)

_CONTAINERS: Mapping[str, Wrapper | tuple[Wrapper, ...]] = {
    **dict.fromkeys(("docker", "podman", "nerdctl", "finch"), (_CONTAINER, _COMPOSE_PLUGIN)),
    **dict.fromkeys(("docker-compose", "podman-compose"), (_COMPOSE,)),
    "crictl": Wrapper("itr:", "interactive tty sync timeout= runtime-endpoint=", skip=1, subcommand=("exec",)),
    "ctr": Wrapper(
        "n:a:dt", "namespace= address= exec-id= cwd= tty detach user=", skip=1, subcommand=("t exec", "task* exec")
    ),
    "runc": Wrapper("e:u:tdp:c:", "root= cwd= env= tty user= detach", skip=1, subcommand=("exec",), lenient=True),
    "buildah": Wrapper("v:tu:", "", skip=1, subcommand=("run",), lenient=True),
    **dict.fromkeys(
        ("lxc", "incus"),
        Wrapper(
            "tTnq", "cwd= env= mode= user= group= force-interactive project=", skip=1, late=True, subcommand=("exec",)
        ),
    ),
    **dict.fromkeys(("lxc-attach", "lxc-execute"), Wrapper("n:f:s:eR:P:u:g:v:", "", lenient=True)),
    **dict.fromkeys(("kubectl", "oc"), (_CLUSTER, _CLUSTER_RUN)),
    "flatpak": Wrapper(
        "", "command= user system branch= arch=", skip=1, subcommand=("run",), program_options=("command",)
    ),
    **dict.fromkeys(("toolbox", "toolbx"), Wrapper("c:d:r:", "container=", subcommand=("run",), lenient=True)),
    "distrobox": Wrapper("n:", "", behind=("--", "-e"), subcommand=("enter",), lenient=True),
    "distrobox-host-exec": Wrapper(),
    "wsl": Wrapper("d:u:e", "distribution= user= exec cd= shell-type=", lenient=True),
}

_HOSTS_ELSEWHERE: Mapping[str, Wrapper] = {
    "ssh": _REMOTE,
    "autossh": replace(_REMOTE, short=_REMOTE.short + "M:"),
    **dict.fromkeys(("rsh", "remsh", "rexec", "hpnssh", "gsissh"), _REMOTE),
    **dict.fromkeys(("plink", "dbclient"), Wrapper("P:l:i:L:R:pw:batchvNTtACX", "", skip=1, text=True, lenient=True)),
    "mosh": Wrapper("46anp:", "ssh= server= client= predict= family= port= no-init local", skip=1),
    "sshpass": Wrapper("p:f:d:eP:vhV"),
    "tailscale": Wrapper("", "", skip=1, text=True, subcommand=("ssh",)),
    **dict.fromkeys(("pssh", "parallel-ssh", "pdsh", "dsh", "clush"), _HOSTS),
    **dict.fromkeys(
        ("mpirun", "mpiexec", "srun", "orterun"),
        Wrapper("n:H:c:N:p:t:G:J:", "-np= host= hostfile= -hostfile=", lenient=True),
    ),
    "heroku": Wrapper("a:r:s:e:", "app= size= exit-code no-tty", text=True, subcommand=("run",), lenient=True),
}

_TOOLS: Mapping[str, Wrapper] = {
    "uv": Wrapper("p:qvn", "", subcommand=("run", "tool run", "x"), lenient=True),
    "uvx": Wrapper("p:qvn", "from= with= python= isolated quiet", lenient=True),
    "pipx": Wrapper("qv", "spec= python= pip-args= no-cache verbose quiet", subcommand=("run",)),
    "poetry": Wrapper("C:P:qvn", "directory= project= no-interaction quiet verbose no-plugins", subcommand=("run",)),
    "pipenv": Wrapper("", "verbose quiet", subcommand=("run",)),
    **dict.fromkeys(
        ("hatch", "pdm", "rye", "pixi", "devbox"), Wrapper("e:vqp:", "", subcommand=("run",), lenient=True)
    ),
    **dict.fromkeys(
        ("conda", "mamba", "micromamba"),
        Wrapper("n:p:v", "name= prefix= cwd= no-capture-output live-stream dev", subcommand=("run",)),
    ),
    "bundle": Wrapper("", "gemfile= keep-file-descriptors", subcommand=("exec",)),
    "composer": Wrapper("d:qvn", "working-dir= quiet", subcommand=("exec",), lenient=True),
    "mise": Wrapper("C:j:qvy", "cd= jobs= raw command=", behind=("--",), subcommand=("exec", "x"), lenient=True),
    **dict.fromkeys(("asdf", "rbenv", "pyenv", "nodenv", "goenv", "jenv"), Wrapper(subcommand=("exec",))),
    "nvm": Wrapper("", "silent", skip=1, subcommand=("exec",)),
    "fnm": Wrapper("", "using=", subcommand=("exec",)),
    "volta": Wrapper("", "node= npm= yarn= env=", subcommand=("run",)),
    "direnv": Wrapper("", "", skip=1, subcommand=("exec",)),
    "npx": Wrapper("c:p:yq", "call= package= yes no quiet no-install prefix= workspace=", shell_options=("c", "call")),
    "npm": Wrapper(
        "c:p:yqw:",
        "call= package= yes no prefix= workspace= workspaces silent",
        subcommand=("exec", "x"),
        shell_options=("c", "call"),
    ),
    "pnpm": Wrapper(
        "crC:F:w",
        "package= shell-mode recursive parallel filter= dir= silent allow-build= workspace-root",
        subcommand=("exec", "dlx"),
    ),
    "pnpx": Wrapper("c", "package="),
    "yarn": Wrapper("p:q", "package= quiet silent cwd=", subcommand=("exec", "dlx", "workspace * exec")),
    "bun": Wrapper("p:", "bun package=", subcommand=("x",)),
    "bunx": Wrapper("p:", "bun package= verbose silent"),
    "cross-env": Wrapper(assigns=True),
    "cross-env-shell": Wrapper(assigns=True, text=True),
    "env-cmd": Wrapper("f:e:r:x", "file= environments= expand-envs no-override silent verbose use-shell"),
    "dotenv": Wrapper("e:f:q:c", "", behind=("--", "run"), lenient=True),
    **dict.fromkeys(("dotenvx", "doppler", "op", "infisical", "aws-vault", "chamber", "teller"), _BEHIND_DASHES),
    **dict.fromkeys(("guix", "devenv", "zellij", "wezterm", "gnome-terminal"), _BEHIND_DASHES),
    "nix": Wrapper("", "", behind=("-c", "--command"), subcommand=("shell", "develop", "run"), lenient=True),
    **dict.fromkeys(
        ("xterm", "konsole", "alacritty", "urxvt", "rxvt", "st", "foot", "terminator"),
        Wrapper("", "", behind=("-e", "-x", "--command"), lenient=True),
    ),
    "kitty": Wrapper("d:o:1T:c:", "directory= override= hold title= config=", directory=("d", "directory")),
    "tmux": Wrapper(
        "2CDlNuvc:f:L:S:T:dAEPXt:s:n:x:y:e:F:hbvp:Kw:Bk",
        "",
        text=True,
        lenient=True,
        shell_options=("c",),
        subcommand=_TMUX,
    ),
    "screen": Wrapper("AadDilLmqrRUvxXwc:e:h:p:s:S:t:T:O", "", lenient=True),
    "watchexec": Wrapper(
        "w:e:f:i:rs:c:d:o:npqvN",
        "watch= exts= filter= ignore= restart shell= clear= debounce= no-vcs-ignore",
        text=True,
    ),
    "entr": Wrapper("acdnprsxz"),
    "asciinema": Wrapper("c:t:i:yqe:", "command= title= overwrite append", subcommand=("rec",), shell_options=("c",)),
    "gdbserver": Wrapper("", "once multi attach debug wrapper", skip=1),
    "codex": Wrapper("", "", subcommand=("sandbox linux", "sandbox macos", "debug landlock"), lenient=True),
    "task": Wrapper("", "", subcommand=("execute", "exec")),
    "cabal": Wrapper("v", "project-file=", subcommand=("exec",), lenient=True),
    "xdotool": Wrapper("", "sync", subcommand=("exec",)),
    "bazel": Wrapper("", "run_under=", subcommand=("run",), shell_options=("run_under",), lenient=True),
}

_ROWS = {**_CONTAINERS, **_HOSTS_ELSEWHERE, **_TOOLS}

RUNNERS: Mapping[str, tuple[Wrapper, ...]] = MappingProxyType(
    {name: row if isinstance(row, tuple) else (row,) for name, row in _ROWS.items()}
)
"""By the name of the program; every row that fits says what is run."""
