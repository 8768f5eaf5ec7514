"""Programs that run another program: how their own options read, so that the inner command can be found.

Rules: an option that is not listed makes the command unverifiable (its value could be taken for the program); names and
letters come from the programs' manual pages (util-linux, coreutils, sudo, doas, strace, bubblewrap, runit, …). Here are
the programs of the system; those of containers, other hosts and developers' tools are in `agent.shell.runners`.

A spec is a getopt string (`x` a letter, `x:` a letter with a value, `x::` with an optional attached value) and long
names (`name`, `name=` with a value, `name==` with two, `-name` spelled with one dash).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from agent.values import dataclass


@dataclass(frozen=True, slots=True)
class Wrapper:
    """`skip`: operands before the inner command. `late`: options are allowed behind these too. `assigns`:
    ``NAME=value`` operands may precede it. `text`: the inner command is shell text (its words joined), not an argv.
    `subcommand`: only behind one of these operands (several words: one after the other; globs), options allowed again
    behind each. `behind`: the inner command begins behind one of these words and nowhere else. `shell_options`:
    options whose value is shell text; `program_options`: whose value is run with the operands; `argv_options`: that
    make an argv of what would be shell text. `starts_shell`: options with which it starts a shell where there is no
    inner command (``""``: always), which then reads standard input; `no_shell`: with these it does not. `directory`:
    the option that changes the directory. `lenient`: has many more options than are listed; an unlisted one is stepped
    over, and every operand near it is taken for the inner command too."""

    short: str = ""
    long: str = ""
    skip: int = 0
    late: bool = False
    assigns: bool = False
    text: bool = False
    subcommand: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    shell_options: tuple[str, ...] = ()
    program_options: tuple[str, ...] = ()
    argv_options: tuple[str, ...] = ()
    starts_shell: tuple[str, ...] = ()
    no_shell: tuple[str, ...] = ()
    directory: tuple[str, ...] = ()
    lenient: bool = False


_SUDO = Wrapper(
    "ABbC:D:EeHiKklNnPp:Rr:SsT:t:U:u:Vvg:h:",
    "askpass background bell close-from= chdir= preserve-env edit group= set-home help host= login remove-timestamp"
    " reset-timestamp list no-update non-interactive preserve-groups prompt= chroot= role= stdin shell type="
    " command-timeout= other-user= user= version validate",
    assigns=True,
    directory=("D", "chdir"),
    starts_shell=("s", "shell", "i", "login"),
)
_NAMESPACES = (
    "mount ipc net network pid uts user cgroup time fork map-root-user map-current-user map-user= map-group= map-users="
    " map-groups= mount-proc kill-child keep-caps propagation= setgroups= root= wd= wdns= setuid= setgid= boottime="
    " monotonic= all target= follow-context preserve-credentials no-fork join-cgroup env"
)

_BUBBLEWRAP = (
    "args= argv0= unshare-all share-net unshare-user unshare-user-try unshare-ipc unshare-pid unshare-net unshare-uts"
    " unshare-cgroup unshare-cgroup-try userns= userns2= disable-userns pidns= uid= gid= hostname= chdir= clearenv"
    " setenv== unsetenv= lock-file= sync-fd= bind== bind-try== dev-bind== dev-bind-try== ro-bind== ro-bind-try=="
    " remount-ro= overlay-src= overlay== tmp-overlay= ro-overlay= exec-label= file-label= proc= dev= tmpfs= mqueue="
    " dir= file== bind-data== ro-bind-data== symlink== chmod== seccomp= add-seccomp-fd= block-fd= userns-block-fd="
    " info-fd= json-status-fd= new-session die-with-parent as-pid-1 cap-add= cap-drop= perms= size="
)

WRAPPERS: Mapping[str, Wrapper] = MappingProxyType(
    {
        "sudo": _SUDO,
        "sudo-rs": _SUDO,
        "doas": Wrapper("a:C:Lnsu:", "", starts_shell=("s",)),
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
            argv_options=("x", "exec"),
        ),
        "flock": Wrapper(
            "sexnow:E:uFvc:",
            "shared exclusive unlock nonblock nb timeout= wait= conflict-exit-code= close no-fork verbose command=",
            skip=1,
            shell_options=("c", "command"),
        ),
        "chroot": Wrapper("", "userspec= groups= skip-chdir", skip=1, starts_shell=("",)),
        "unshare": Wrapper("m::u::i::n::p::U::C::T::frcw:R:S:G:l:", _NAMESPACES, starts_shell=("",)),
        "nsenter": Wrapper("at:m::u::i::n::p::U::C::T::FS:G:r::w::W:Zec", _NAMESPACES, starts_shell=("",)),
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
        "systemd-run": Wrapper(
            "H:M:dGp:qtPu:rSE:",
            "unit= property= description= slice= uid= gid= nice= working-directory= setenv= service-type= on-active="
            " on-boot= on-startup= on-unit-active= on-calendar= host= machine= user system scope wait pty pipe shell"
            " quiet collect remain-after-exit same-dir send-sighup no-block no-ask-password expand-environment=",
            directory=("working-directory",),
            lenient=True,
        ),
        "systemd-inhibit": Wrapper("", "what= who= why= mode="),
        "start-stop-daemon": Wrapper(
            "KSTHx:n:u:p:s:a:N:P:I:k:d:r:g:c:bmtoqvCO:R:",
            "start stop status help exec= startas= pidfile= name= user= chuid= group= chroot= chdir= nicelevel= umask="
            " procsched= iosched= signal= retry= output= background make-pidfile test oknodo quiet verbose no-close",
            program_options=("x", "exec", "a", "startas"),
            directory=("d", "chdir"),
        ),
        "strace": Wrapper("CcdfFhiknqrtTvVwxyYzZDe:o:p:s:u:E:a:b:I:O:S:P:X:U:", "", lenient=True),
        "ltrace": Wrapper("bcCfhiLrStTVa:A:D:e:F:l:n:o:p:s:u:w:x:X:", "", lenient=True),
        "valgrind": Wrapper("qvdh", "", lenient=True),
        "catchsegv": Wrapper(),
        "proxychains": Wrapper("qf:"),
        "proxychains4": Wrapper("qf:"),
        "tsocks": Wrapper(),
        "torsocks": Wrapper("aipduPq", "isolate address= port= quiet debug shell"),
        "unbuffer": Wrapper("p"),
        "rlwrap": Wrapper("", "", lenient=True),
        "fakeroot": Wrapper("l:s:i:ub:h", "lib= faked= unknown-is-real fd-base="),
        "eatmydata": Wrapper(),
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
        "nsjail": Wrapper("M:C:c:u:g:H:D:R:B:T:E:p:t:x:d:l:vqQe", "", lenient=True),
        "firejail": Wrapper("c", "quiet noprofile private net= profile= shell= name= apparmor", lenient=True),
        "bwrap": Wrapper("", _BUBBLEWRAP, directory=("chdir",)),
        "proot": Wrapper(
            "r:b:q:w:v:0S:R:k:i:p:n",
            "rootfs= bind= qemu= cwd= pwd= verbose= kernel-release= root-id change-id= link2symlink",
            directory=("w", "cwd", "pwd"),
        ),
        "fakechroot": Wrapper("l:d:e:c:b:sh", "lib= elfloader= environment= config-dir= bindir= use-system-libs"),
        "capsh": Wrapper(),
        "runcon": Wrapper("ct:u:r:l:", "compute type= user= role= range=", skip=1, lenient=True),
        "aa-exec": Wrapper("p:n:div", "profile= namespace= debug immediate verbose"),
        "sg": Wrapper("", "", skip=1, shell_options=("c",), lenient=True),
        **dict.fromkeys(("gosu", "su-exec", "setuidgid", "s6-setuidgid", "envuidgid"), Wrapper("", "", skip=1)),
        "chpst": Wrapper("u:U:b:e:/:C:n:l:L:m:d:o:p:f:c:r:t:vP012", ""),
        "softlimit": Wrapper("a:c:d:f:l:m:o:p:r:s:t:", ""),
        **dict.fromkeys(("envdir", "s6-envdir", "argv0"), Wrapper("", "", skip=1)),
        "setlock": Wrapper("nNxX", "", skip=1),
        "logsave": Wrapper("asv", "", skip=1),
        "lckdo": Wrapper("wW:qsxe", "", skip=1),
        "chronic": Wrapper("ve"),
        "ifne": Wrapper("n"),
        **dict.fromkeys(("tini", "docker-init"), Wrapper("p:e:vgslh", "version")),
        "dumb-init": Wrapper("cr:vV", "rewrite= single-child verbose version"),
        "catatonit": Wrapper("gPL", ""),
        "cpulimit": Wrapper("l:p:e:P:zibvfqs:", "limit= pid= exe= path= lazy include-children background foreground"),
        "perf": Wrapper(
            "e:o:F:p:t:C:c:agsdvqrBAI:r:x:D:i:z",
            "event= output= freq= call-graph= repeat= all-cpus big-num= field-separator= per-core verbose delay=",
            subcommand=("stat", "record", "trace", "mem record", "lock record", "sched record", "c2c record"),
            lenient=True,
        ),
        "rr": Wrapper("nhSMDs:", "", subcommand=("record",), lenient=True),
        "heaptrack": Wrapper("ro:", "raw output= record-only"),
        "gtime": Wrapper("apvqf:o:", "format= output= append portability verbose quiet"),
        "faketime": Wrapper("mf", "exclude-monotonic date-prog=", skip=1),
        "daemonize": Wrapper("ac:e:o:p:l:u:E:v", "", directory=("c",)),
        "daemon": Wrapper("n:P:X:D:u:F:l:L:a:o:O:rfivVUN", "", lenient=True),
        "trickle": Wrapper("sd:u:w:t:l:n:p:P:vVh"),
        "schedtool": Wrapper("0123456789NFRBIDa:p:n:vr", "", behind=("-e",), lenient=True),
        "ip": Wrapper("n:46bdsoarcjphV", "netns= json", skip=1, subcommand=("netns exec", "net exec", "vrf exec")),
        "ssh-agent": Wrapper("a:E:O:P:t:cDdks", ""),
        "systemd-cat": Wrapper("t:p:", "identifier= priority= stderr-priority= level-prefix= namespace="),
        "systemd-nspawn": Wrapper("D:M:u:E:p:U:jbqnxPi:", "", lenient=True),
        "machinectl": Wrapper("qH:M:E:", "quiet setenv= uid=", skip=1, subcommand=("shell",), lenient=True),
        "xinit": Wrapper(),
        "startx": Wrapper(),
        "please": Wrapper("a:d:e:g:lnpr:t:u:w", "", lenient=True),
        "dtach": Wrapper("c:n:N:A:r:e:Ez", ""),
        **dict.fromkeys(("nq", "fq"), Wrapper("cq")),
        **dict.fromkeys(("tsp", "ts"), Wrapper("nfmdgE", "", lenient=True)),
        "torify": Wrapper(),
        "usewithtor": Wrapper(),
        **dict.fromkeys(
            ("aoss", "padsp", "distcc", "ccache", "multitime", "openvt", "grc", "pexec"), Wrapper("", "", lenient=True)
        ),
        "msgfilter": Wrapper("i:o:D:PdFhVpE", "input= output-file= directory= keep-header indent", lenient=True),
        "sem": Wrapper("j:", "id= fg bg wait", lenient=True),
    }
)

SHELLS = frozenset(
    [
        *("bash", "sh", "dash", "zsh", "ksh", "ksh93", "mksh", "ash", "rbash", "fish", "yash", "posh", "hush", "csh"),
        *("tcsh", "lksh", "pdksh", "oksh", "loksh", "rksh", "rzsh", "osh", "ysh", "brush", "elvish", "nu", "xonsh"),
    ]
)
"""Programs that read shell text."""

MULTICALL = frozenset(("busybox", "toybox", "coreutils", "uutils", "box"))
"""Programs that become the one named by their first operand or by argv[0]."""

LOADERS = ("ld-linux", "ld-musl", "ld.so", "ld64.so", "ld-2.")
"""The dynamic loader, which runs the file it is given (ld.so(8))."""
