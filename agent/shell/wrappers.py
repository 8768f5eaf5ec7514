"""Programs that run another program: how their own options read, so that the inner command can be found.

Rules: an option that is not listed makes the command unverifiable (its value could be taken for the program); names and
letters come from the programs' manual pages (util-linux, coreutils, sudo, doas, strace, git, ssh, docker, kubectl, …).

A spec is a getopt string (`x` a letter, `x:` a letter with a value, `x::` with an optional attached value) and long
names (`name`, `name=` with a value).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Wrapper:
    """`skip`: operands before the inner command. `assigns`: ``NAME=value`` operands may precede it. `text`: the inner
    command is shell text (its words joined), not an argv. `subcommand`: only with one of these first operands, which
    are stepped over, options allowed again behind them. `shell_options`: options whose value is shell text.
    `directory`: the option that changes the directory. `lenient`: has many more options than are listed; an unlisted
    one is stepped over, and every operand near it is taken for the inner command too."""

    short: str = ""
    long: str = ""
    skip: int = 0
    assigns: bool = False
    text: bool = False
    subcommand: tuple[str, ...] = ()
    shell_options: tuple[str, ...] = ()
    directory: tuple[str, ...] = ()
    lenient: bool = False


_SUDO = Wrapper(
    "ABbC:D:EeHiKklNnPp:Rr:SsT:t:U:u:Vvg:h:",
    "askpass background bell close-from= chdir= preserve-env edit group= set-home help host= login remove-timestamp"
    " reset-timestamp list no-update non-interactive preserve-groups prompt= chroot= role= stdin shell type="
    " command-timeout= other-user= user= version validate",
    assigns=True,
    directory=("D", "chdir"),
)
_CONTAINER_LONG = (
    "detach detach-keys= env= env-file= interactive privileged tty user= workdir= rm name= volume= mount= network= net="
    " publish= entrypoint= platform= pull= restart= label= hostname= add-host= cap-add= cap-drop= security-opt= memory="
    " cpus= gpus= device= init read-only tmpfs= ulimit= pid= ipc= userns= shm-size= dns= log-driver= log-opt= quiet"
    " expose= link= ip= annotation= cgroupns= cidfile= runtime= stop-signal= stop-timeout= sysctl= volumes-from= latest"
)
_CONTAINER = Wrapper(
    "dite:u:w:v:p:h:l:m:c:qH:",
    _CONTAINER_LONG + " host= context= config= log-level=",
    skip=1,
    subcommand=("exec", "run"),
)
_NAMESPACES = (
    "mount ipc net network pid uts user cgroup time fork map-root-user map-current-user map-user= map-group= map-users="
    " map-groups= mount-proc kill-child keep-caps propagation= setgroups= root= wd= wdns= setuid= setgid= boottime="
    " monotonic= all target= follow-context preserve-credentials no-fork join-cgroup env"
)

WRAPPERS: Mapping[str, Wrapper] = MappingProxyType(
    {
        "sudo": _SUDO,
        "sudo-rs": _SUDO,
        "doas": Wrapper("a:C:Lnsu:", ""),
        "pkexec": Wrapper("u:", "user= disable-internal-agent keep-cwd"),
        "env": Wrapper(
            "i0u:C:S:va:",
            "ignore-environment null unset= chdir= split-string= debug argv0= block-signal default-signal ignore-signal"
            " list-signal-handling",
            assigns=True,
            shell_options=("S", "split-string"),
            directory=("C", "chdir"),
        ),
        "nice": Wrapper("n:0123456789", "adjustment="),
        "nohup": Wrapper("", ""),
        "timeout": Wrapper("k:s:vpf", "kill-after= signal= foreground preserve-status verbose", skip=1),
        "gtimeout": Wrapper("k:s:vpf", "kill-after= signal= foreground preserve-status verbose", skip=1),
        "stdbuf": Wrapper("i:o:e:", "input= output= error="),
        "setsid": Wrapper("cfw", "ctty fork wait"),
        "ionice": Wrapper("c:n:tp:P:u:", "class= classdata= ignore pid= pgid= uid="),
        "time": Wrapper("apvqf:o:", "format= output= append portability verbose quiet"),
        "watch": Wrapper(
            "bcCd::egn:pq:rs:tvwxf",
            "beep color no-color differences errexit chgexit equexit= interval= precise no-rerun no-title no-wrap exec"
            " shotsdir= follow",
            text=True,
        ),
        "flock": Wrapper(
            "sexnow:E:uFvc:",
            "shared exclusive unlock nonblock nb timeout= wait= conflict-exit-code= close no-fork verbose command=",
            skip=1,
            shell_options=("c", "command"),
        ),
        "chroot": Wrapper("", "userspec= groups= skip-chdir", skip=1),
        "unshare": Wrapper("m::u::i::n::p::U::C::T::frcw:R:S:G:l:", _NAMESPACES),
        "nsenter": Wrapper("at:m::u::i::n::p::U::C::T::FS:G:r::w::W:Zec", _NAMESPACES),
        "setpriv": Wrapper(
            "d",
            "dump no-new-privs nnp ruid= euid= reuid= rgid= egid= regid= clear-groups keep-groups init-groups groups="
            " inh-caps= ambient-caps= bounding-set= securebits= pdeathsig= selinux-label= apparmor-profile= reset-env"
            " landlock-access= landlock-rule= seccomp-filter= ptracer=",
        ),
        "taskset": Wrapper("acp", "all-tasks cpu-list pid", skip=1),
        "chrt": Wrapper(
            "abdefimoprRT:P:D:v",
            "all-tasks batch deadline ext fifo idle max other pid rr reset-on-fork sched-runtime= sched-period="
            " sched-deadline= verbose",
            skip=1,
        ),
        "prlimit": Wrapper("o:p:", "", lenient=True),
        "choom": Wrapper("n:p:", "adjust= pid="),
        "numactl": Wrapper("i:N:m:C:l", "", lenient=True),
        "cgexec": Wrapper("g:", "sticky"),
        "systemd-run": Wrapper("H:M:dGpqtu:rS", "", lenient=True),
        "systemd-inhibit": Wrapper("", "what= who= why= mode="),
        "start-stop-daemon": Wrapper("", "", lenient=True),
        "strace": Wrapper("CcdfFhiknqrtTvVwxyYzZDe:o:p:s:u:E:a:b:I:O:S:P:X:U:", "", lenient=True),
        "ltrace": Wrapper("bcCfhiLrStTVa:A:D:e:F:l:n:o:p:s:u:w:x:X:", "", lenient=True),
        "valgrind": Wrapper("qvdh", "", lenient=True),
        "gdb": Wrapper("nqx", "args batch quiet nx", lenient=True),
        "catchsegv": Wrapper(),
        "proxychains": Wrapper("qf:"),
        "proxychains4": Wrapper("qf:"),
        "tsocks": Wrapper(),
        "torsocks": Wrapper("aipduPq", "isolate address= port= quiet debug shell"),
        "unbuffer": Wrapper("p"),
        "rlwrap": Wrapper("", "", lenient=True),
        "fakeroot": Wrapper("l:s:i:ub:h", "lib= faked= unknown-is-real fd-base="),
        "eatmydata": Wrapper(),
        "setarch": Wrapper("BFILRSTXZv", "", lenient=True),
        "linux32": Wrapper("BFILRSTXZv", "", lenient=True),
        "linux64": Wrapper("BFILRSTXZv", "", lenient=True),
        "xvfb-run": Wrapper("ae:f:hl:n:p:s:w:", "auto-servernum error-file= auth-file= server-num= server-args= wait="),
        "dbus-run-session": Wrapper("", "config-file= dbus-daemon="),
        "dbus-launch": Wrapper("", "exit-with-session exit-with-x11 sh-syntax csh-syntax auto-syntax"),
        "caffeinate": Wrapper("dimsut:w:"),
        "command": Wrapper("pvV"),
        "builtin": Wrapper(),
        "exec": Wrapper("cla:"),
        "noglob": Wrapper(),
        "nocorrect": Wrapper(),
        "coproc": Wrapper(),
        # Reserved words that the grammar takes for commands behind `time` and `!`.
        **dict.fromkeys(("{", "!", "if", "while", "until", "elif", "then", "do", "else"), Wrapper()),
        "runuser": Wrapper(
            "u:g:G:lmpPs:c:fTw:",
            "user= group= supp-group= login preserve-environment shell= command= session-command= fast pty",
            shell_options=("c", "command", "session-command"),
        ),
        "script": Wrapper(
            "ac:efqt::m:I:O:B:T:o:E:",
            "append command= return flush force quiet timing log-in= log-out= log-io= log-timing= output-limit= echo="
            " logging-format=",
            shell_options=("c", "command"),
        ),
        "ssh": Wrapper("46AaCfGgKkMNnqsTtVvXxYyB:b:c:D:E:e:F:I:i:J:L:l:m:O:o:P:p:Q:R:S:W:w:", "", skip=1, text=True),
        "docker": _CONTAINER,
        "podman": _CONTAINER,
        "nerdctl": _CONTAINER,
        "kubectl": Wrapper(
            "itn:c:f:s:qv:",
            "namespace= container= stdin tty context= cluster= kubeconfig= filename= quiet pod-running-timeout="
            " server=",
            skip=1,
            subcommand=("exec",),
        ),
        "uv": Wrapper("p:qvn", "", subcommand=("run",), lenient=True),
        "poetry": Wrapper("C:qvn", "directory= project=", subcommand=("run",)),
        "pipenv": Wrapper("", "", subcommand=("run",)),
        "bundle": Wrapper("", "gemfile= keep-file-descriptors", subcommand=("exec",)),
        "mise": Wrapper("", "", subcommand=("exec", "x"), lenient=True),
        "direnv": Wrapper("", "", skip=1, subcommand=("exec",)),
        "tmux": Wrapper(
            "2CDlNuvc:f:L:S:T:dAEPXt:s:n:x:y:e:F:hbvp:",
            "",
            text=True,
            lenient=True,
            subcommand=(
                "new",
                "new-session",
                "neww",
                "new-window",
                "splitw",
                "split-window",
                "run",
                "run-shell",
                "respawn-pane",
            ),
        ),
        "screen": Wrapper("AadDilLmqrRUvxXwc:e:h:p:s:S:t:T:O", ""),
        "nsjail": Wrapper("", "", lenient=True),
        "firejail": Wrapper("", "", lenient=True),
        "hyperfine": Wrapper(
            "w:r:m:M:p:c:n:s:u:iNS:",
            "",
            text=True,
            lenient=True,
            shell_options=("p", "c", "prepare", "cleanup", "setup"),
        ),
        "npx": Wrapper("c:p:yq", "call= package= yes quiet", shell_options=("c", "call")),
    }
)

SHELLS = frozenset(("bash", "sh", "dash", "zsh", "ksh", "ksh93", "mksh", "ash", "rbash", "fish", "yash", "posh"))
"""Programs that read shell text."""

MULTICALL = frozenset(("busybox", "toybox", "coreutils", "uutils", "box"))
"""Programs that become the one named by their first operand or by argv[0]."""

LOADERS = ("ld-linux", "ld-musl", "ld.so", "ld64.so", "ld-2.")
"""The dynamic loader, which runs the file it is given (ld.so(8))."""
