"""Attacks on the agent itself: its processes, its files, its doors, its patience, and what it believes."""

from __future__ import annotations

from tests.escape.attacks.declared import Attack, Control, Group, Record, Shown, Verdict, everywhere

REFUSED, CONTAINED, SEEN = Verdict.REFUSED, Verdict.CONTAINED, Verdict.SEEN
OPEN, UNTESTED = Verdict.OPEN, Verdict.UNTESTED
INSIDE, UNCONFINED = Control.INSIDE, Control.UNCONFINED
SURVIVAL = "tests/escape/test_survival.py"
DANGEROUS = ("bash.dangerous", "recursive-delete-system")
NO_RIGHTS = "the account has not the right for it anywhere: the attack is on the filter before that"
REPARENTED = "Linux gives an orphan SIGCHLD for its last word when its parent has ended: what is shown is that all do"
THERE_IS_NONE = "outside of the confinement there is no such socket"
STILL_DECIDES = "what is shown is that the agent refuses a dangerous command afterwards as it does before"
ONE_UID = (
    "without root the session's first process has the session's account and Landlock domain: the session can end it,"
    " and itself with it, which is on record (`agent.degraded`)"
)
METADATA = (
    "without root the agent's files belong to the session's account, and neither Landlock nor the filter knows changes"
    " of mode, times and attributes; those of the policy are recorded (`integrity.changed`), those of the log are not"
)
READABLE = (
    "gVisor shows /proc/PID/environ, maps and the list of descriptors of any account's processes: the agent holds no"
    " secret in its environment; in gVisor of 2024 its process namespace hides all but the session's init"
)
PRIORITIES = "gVisor lets any account set the priority and processors of another's process, to no effect on scheduling"


def contained(act: str, name: str, *rows: int, control: Control | str = UNCONFINED) -> Attack:
    return Attack(act, name, everywhere(CONTAINED), control, rows)


def without(act: str, name: str, *rows: int, lacking: str) -> Attack:
    return Attack(act, name, everywhere(CONTAINED, gvisor=UNTESTED), UNCONFINED, rows, untested=lacking)


def outlasted(act: str, name: str, words: str = "", control: Control | str = STILL_DECIDES) -> Attack:
    """After it a dangerous command is refused, and on record, as before."""
    record = Record(*DANGEROUS, words or "rm -rf /etc/parhelia-" + act.replace("_", "-"))
    return Attack(act, name, everywhere(REFUSED), control, (), record)


ON_PROCESSES = (
    contained("signalled", "A process of the agent's is signalled"),
    contained("killed", "A process of the agent's is stopped, made to dump its memory, and killed"),
    Attack("sessions_init_signalled", "The session's first process, which is the agent's, is signalled",
           everywhere(CONTAINED, restricted=OPEN), UNCONFINED, hole=ONE_UID),
    contained("signalled_for_a_descriptor",
              "The kernel is made to signal a process of the agent's for a descriptor (F_SETOWN, F_SETSIG)"),
    contained("orphans_last_word", "An orphan's end kills the process of the agent's that takes it (clone's signal)",
              control=REPARENTED),
    contained("traced", "A process of the agent's is traced", 35),
    contained("memory_read", "The memory of a process of the agent's is read by process_vm_readv", 35),
    contained("memory_written", "The memory of a process of the agent's is written", 35, 37),
    contained("neighbours_memory", "The memory of another of the session's processes is written by /proc/PID/mem"),
    Attack("looked_into", "Environment, maps and descriptors of a process of the agent's are looked at",
           everywhere(CONTAINED, gvisor=OPEN), UNCONFINED, (13,), hole=READABLE),
    contained("followed", "/proc/PID/root, cwd and exe of a process of the agent's are followed", 12, 13),
    contained("descriptors_opened", "What only a process of the agent's has open is opened by its /proc/PID/fd", 13),
    without("descriptors_taken", "pidfd_getfd takes a descriptor of the agent's", 36,
            lacking="gVisor has no pidfd_getfd"),
    contained("limited", "The limits of a process of the agent's are lowered"),
    Attack("slowed", "Priority, scheduling and processors of a process of the agent's are changed",
           everywhere(CONTAINED, gvisor=OPEN), UNCONFINED, hole=PRIORITIES),
    contained("offered_to_the_oom_killer", "A process of the agent's is made the first to be killed for memory"),
)  # fmt: skip

ON_FILES = (
    contained("files_replaced", "The agent's programs, policy, log, sockets and settings are written or replaced",
              control=INSIDE),
    Attack("files_metadata", "The modes of the agent's programs, policy and settings are changed",
           everywhere(CONTAINED, restricted=SEEN), INSIDE, (),
           Record("integrity.changed", None, "policies/policy.yaml")),
    Attack("log_metadata", "The modes of the log and its directory are changed",
           everywhere(CONTAINED, restricted=OPEN), INSIDE, hole=METADATA),
    contained("log_read", "The log and the policy are read", control=INSIDE),
    Attack("control_socket", "The control socket is asked by the session",
           everywhere(CONTAINED, docker=REFUSED, restricted=REFUSED), THERE_IS_NONE, (),
           Record("network.egress_blocked", "unix-socket", "control/control.sock")),
)  # fmt: skip

ON_PATIENCE = (
    outlasted("hook_connections", "Three hundred connections to the hook's socket are held open", control=INSIDE),
    outlasted("descriptors_sent", "Thousands of descriptors are sent to the hook's socket", control=INSIDE),
    outlasted("endless_message", "A message without end is sent to the hook's socket", control=INSIDE),
    outlasted("descriptors_in_flight", "Descriptors are sent until the account may have no more on their way"),
    outlasted("full_server", "Sixty threads wait for a Unix server that accepts nobody"),
    Attack("leased_script", "A script that is executed is under a lease of the session's",
           everywhere(REFUSED, gvisor=UNTESTED), STILL_DECIDES,
           record=Record(*DANGEROUS, "rm -rf /etc/parhelia-leased-script"), untested="gVisor has no leases"),
    outlasted("proxy_connections", "Six hundred connections to the proxy are held open"),
    outlasted("many_processes", "A hundred and fifty processes are started"),
    outlasted("small_fork_bomb", "Every process forks, and each of its children"),
    outlasted("many_refused_opens", "A hundred thousand opens are refused (in gVisor twenty thousand)"),
    outlasted("many_refused_execs", "Two hundred dangerous commands at once (in gVisor forty)",
              "rm -rf /etc/parhelia-after-the-flood"),
)  # fmt: skip

ON_BELIEFS = (
    outlasted("clients_choice_of_daemon", "The hook's client is led to a server of the session's",
              "rm -rf /etc/parhelia-clients-choice", control=INSIDE),
    without("second_listener", "The session listens to its own system calls", 33, lacking="gVisor has no listeners"),
    contained("clock", "The clock is changed", control=NO_RIGHTS),
    without("typed_ahead", "TIOCSTI types into a terminal", lacking="gVisor's terminals take no TIOCSTI"),
    without("typed_ahead_by_a_longer_number", "TIOCSTI with a bit that the kernel does not look at",
            lacking="gVisor's terminals take no TIOCSTI"),
    contained("machine_settings", "Settings of the machine's are written (core pattern, modules, host name)",
              control=INSIDE),
)  # fmt: skip

SHOWN = (
    Shown((), "The agent's disk is full",
          "tests/escape/test_bad_input.py::test_a_full_audit_disk_does_as_the_policy_says"),
    Shown((), "The agent's memory, under a flood of refusals",
          "tests/escape/test_flood.py::test_every_refusal_of_a_flood_is_counted_and_others_go_on"),
    Shown((), "The proxy's port after the egress process has died",
          "tests/escape/test_restarts.py::test_an_egress_process_that_dies_is_replaced_and_gives_nothing_away"),
    Shown((), "Parts of the agent die at random under load",
          "tests/escape/test_chaos.py::test_random_deaths_under_load_let_nothing_out_and_lose_no_refusal"),
    Shown((), "Both parts are killed at once, and a guard as it takes over",
          f"{SURVIVAL}::test_both_parts_killed_at_once_and_a_guard_killed_as_it_takes_over_are_replaced"),
    Shown((), "The keeper is stopped",
          f"{SURVIVAL}::test_while_the_keeper_is_stopped_all_is_decided_and_a_guard_that_dies"
          "_then_is_replaced_when_it_goes_on"),
    Shown((), "The guard dies with a verb in hand",
          f"{SURVIVAL}::test_a_verb_that_is_in_hand_when_the_guard_dies_fails_and_leaves_nothing_half"),
    Shown((), "The guard is stopped (where execs are traced)",
          "tests/enforce/commands/test_tracer_deadlines.py"
          "::test_while_the_guard_is_stopped_an_exec_is_refused_and_on_record_when_it_goes_on"),
    Shown((), "The control socket, by every account",
          "tests/escape/test_control_socket.py::test_only_who_has_a_role_is_answered"),
    Shown((), "A policy directory that is half written",
          "tests/escape/test_live_policy.py::test_a_policy_directory_that_is_half_written_leaves_the_last_good_policy"),
    Shown((), "The operator's terminal",
          "tests/escape/test_terminal.py::test_the_controlling_terminal_is_not_the_operators"),
    Shown((), "What the session left behind runs on after it",
          "tests/escape/test_outliving.py::test_nothing_outlives_a_session_in_a_container"),
    Shown((), "A process beside the session that nothing confines is reported",
          "tests/escape/test_strays.py::"
          "test_what_runs_in_the_container_beside_the_agent_is_reported_and_what_is_the_session_s_or_agent_s_is_not"),
    Shown((), "The agent's secrets", "tests/escape/test_attacks.py::"
          "test_the_agents_secrets_are_in_no_place_that_the_session_sees"),
)  # fmt: skip

AGENT = Group(
    "agent",
    "The agent itself",
    "agent.py",
    """\
version: 1
egress:
  allow:
    - {host: allowed.test, protocol: http, ports: [{http}], addresses: [127.0.0.0/8]}
commands:
  deny:
    - id: recursive-delete-system
      match: {program: rm, options: [recursive], operands: ["/", "/*", "/etc/**", "/usr/**"]}
      severity: critical
      reason: deletes the system
      instead: delete inside the workspace
      examples: {match: ["rm -rf /"], no_match: ["rm -rf ./build"]}
paths:
  write: ["{granted}", /tmp]
  read: [/usr, /bin, /sbin, /lib, /lib64, /etc, /opt, "{programs}"]
""",
    (*ON_PROCESSES, *ON_FILES, *ON_PATIENCE, *ON_BELIEFS),
    shown=SHOWN,
    parts=("beliefs.py", "doors.py", "patience.py"),
)
