"""Attacks on the path guard and the exec ring: the rows of the path corpus, and what was found besides."""

from __future__ import annotations

from tests.escape.attacks.declared import Attack, Control, Group, Record, Shown, Verdict, everywhere

REFUSED, CONTAINED, OPEN, UNTESTED = Verdict.REFUSED, Verdict.CONTAINED, Verdict.OPEN, Verdict.UNTESTED
INSIDE, UNCONFINED = Control.INSIDE, Control.UNCONFINED
DANGEROUS = ("bash.dangerous", "recursive-delete-system")
UNGRANTED = ("permission.denied", "paths-default")
NO_RIGHTS = "the account has not the right for it anywhere: the attack is on the filter before that"
DAC_ONLY = (
    "gVisor has no Landlock, and that of 2022 no mount namespaces: what file permissions leave open to everybody is"
    " open to the session, outside of the grants too (`doctor` says `paths` is *partial*)"
)
METADATA = (
    "neither Landlock nor the filter knows metadata: where no mount namespace is to be had, modes, times and sizes"
    " outside of the grants follow permissions"
)
WATCHED = (
    "watching a directory (inotify) is no access to Landlock: without a mount namespace, names of what is made, changed"
    " or opened there are seen where permissions let the account list it"
)
NAMED_TWICE = "a file with a second name below a grant is granted by that name, if permissions allow it"
UNHELD = (
    "`paths.protect` is held by mounts; without a mount namespace only the home's places are, by ownership where the"
    " agent is root, and for others `check`, the tool hook and `paths.audit` alone decide by it"
)
MADE_LATER = (
    "a protected name is held where it is, or is reserved, when the session starts; what is made later below new"
    " directories is not, and is seen by the hook and the watch alone"
)
IPC = (
    "System V shared memory has no paths and no rules but permissions; where no namespaces are to be had the session"
    " shares the machine's"
)


def landlocked(act: str, name: str, *rows: int, control: Control | str = UNCONFINED) -> Attack:
    """What Landlock keeps closed, and gVisor does not."""
    return Attack(act, name, everywhere(CONTAINED, gvisor_2022=OPEN), control, rows, hole=DAC_ONLY)


def outside_seen(act: str, name: str, *rows: int, control: Control | str = UNCONFINED) -> Attack:
    """What Landlock keeps closed, and a process namespace out of sight."""
    return Attack(act, name, everywhere(CONTAINED, gvisor_2022=OPEN), control, rows, hole=DAC_ONLY)


def contained(act: str, name: str, *rows: int, control: Control | str = UNCONFINED) -> Attack:
    return Attack(act, name, everywhere(CONTAINED), control, rows)


def refused(act: str, name: str, *rows: int, words: str = "", control: Control | str = UNCONFINED) -> Attack:
    """What the exec ring refuses, and records."""
    return Attack(
        act, name, everywhere(REFUSED), control, rows, Record(*DANGEROUS, words or "-" + act.replace("_", "-"))
    )


def without(act: str, name: str, *rows: int, control: Control | str = UNCONFINED, lacking: str) -> Attack:
    """What the kernel refuses, and gVisor has not."""
    return Attack(act, name, everywhere(CONTAINED, gvisor=UNTESTED), control, rows, untested=lacking)


def protected(act: str, name: str, *rows: int) -> Attack:
    return Attack(act, name, everywhere(OPEN, host=CONTAINED, gvisor_2024=CONTAINED), INSIDE, rows, hole=UNHELD)


def made_later(act: str, name: str, *rows: int) -> Attack:
    return Attack(act, name, everywhere(OPEN), INSIDE, rows, hole=MADE_LATER)


ON_GRANTS = (
    landlocked("plain_read", "A file that everybody may read is read outside of the grants"),
    landlocked("plain_write", "A file that everybody may write is written outside of the grants"),
    landlocked("new_file", "A file is made outside of the grants"),
    landlocked("new_directory", "A directory is made outside of the grants"),
    landlocked("removed_file", "A file outside of the grants is removed"),
    landlocked("truncated_file", "A file outside of the grants is truncated"),
    landlocked("listed_directory", "A directory outside of the grants is listed"),
    contained("private_file", "A file of root's alone is read", control=NO_RIGHTS),
    landlocked("symlink_out", "A symlink in a writable tree leads a write outside", 1),
    landlocked("symlinked_parent", "A symlinked parent directory leads a new file outside", 2),
    landlocked("swapped_link", "A symlink is swapped between check and open", 3),
    landlocked("renamed_in", "A file is renamed from outside into a granted tree", 7, control=INSIDE),
    landlocked("renamed_out", "A file is renamed out of a granted tree", 7),
    without("exchanged", "A file of the session's is exchanged with one outside", 7, control=INSIDE,
            lacking="gVisor cannot exchange two files"),
    landlocked("hard_link", "A hard link gives a file outside a second name below a grant", 9, control=INSIDE),
    Attack("earlier_hard_link", "A hard link made before the session started is read", everywhere(OPEN),
           UNCONFINED, (10,), hole=NAMED_TWICE),
    Attack("earlier_hard_link_private", "A hard link made before to a file of another account's is read",
           everywhere(CONTAINED, restricted=OPEN), NO_RIGHTS, (10,), hole=NAMED_TWICE),
    landlocked("own_root_link", "/proc/self/root leads outside", 11),
    landlocked("own_cwd_link", "/proc/self/cwd leads outside", 13),
    landlocked("reopened_descriptor", "An O_PATH descriptor is opened again through /dev/fd", 13, 14),
    contained("inherited_descriptor", "A file or directory was left open by whoever started the session", 14, 15,
              control=INSIDE),
    without("openat2", "openat2, whose flags no filter sees, opens a file outside", 17, control=INSIDE,
            lacking="gVisor has no openat2"),
    without("io_uring", "io_uring opens files past the filter", 18, lacking="gVisor has no io_uring"),
    without("unnamed_file_linked_out", "An O_TMPFILE file is linked to a place outside", 20, control=INSIDE,
            lacking="gVisor has no O_TMPFILE"),
    landlocked("long_path", "A path longer than PATH_MAX is walked to a place outside", 48),
    landlocked("shell_builtins", "A shell's builtins and redirections read and write outside", 26),
    Attack("changed_mode", "Mode and times of an own file outside of the grants are changed",
           everywhere(OPEN, host=CONTAINED, gvisor_2024=CONTAINED), UNCONFINED, hole=METADATA),
    Attack("looked_at", "Existence and size of a file outside of the grants are seen",
           everywhere(OPEN, host=CONTAINED, gvisor_2024=CONTAINED), UNCONFINED, hole=METADATA),
    Attack("watched_directory", "What happens in a directory outside of the grants is watched",
           everywhere(OPEN, host=CONTAINED, gvisor_2024=CONTAINED), UNCONFINED, hole=WATCHED),
)  # fmt: skip

ON_PROTECTED = (
    protected("protected_file", "A protected file that is there is written", 8),
    protected("protected_file_made_later", "A protected file that is not there yet is made", 4),
    made_later("protected_name_made_later", "A file whose name is protected everywhere is made in a directory", 4),
    made_later("protected_in_a_new_repository", "A repository made later gets a hook", 5),
    protected("renamed_over_a_protected_file", "A file is renamed over a protected one", 8),
    protected("removed_protected_file", "A protected file is removed"),
    protected("hard_link_to_a_protected_file", "A protected file is written by a second name", 9),
    protected("deep_protected_file", "A protected file many directories down is written", 47),
    made_later("protected_by_a_pattern_and_made_later", "A file that a pattern protects is made later", 46),
    protected("rebuilt_ancestor", "The directory above a protected place is renamed and rebuilt", 6),
    Attack("other_case", "A protected name is written in another case", everywhere(UNTESTED), INSIDE, (45,),
           untested="the file systems here tell upper from lower case"),
)  # fmt: skip

ON_NEIGHBOURS = (
    contained("outsiders_root", "/proc/PID/root of a process outside leads to its files", 12),
    contained("outsiders_cwd", "/proc/PID/cwd of a process outside leads to its directory", 13),
    outside_seen("outsiders_descriptor", "/proc/PID/fd of a process outside leads to its files", 13),
    contained("outsiders_memory", "The memory of a process outside is read"),
    outside_seen("outsiders_environment", "The environment of a process outside is read"),
    outside_seen("outsiders_signal", "A process outside, of the session's own account, is signalled", control=INSIDE),
    Attack("shared_memory_of_the_machine", "System V shared memory of a process outside is read",
           everywhere(OPEN, host=CONTAINED, gvisor_2024=CONTAINED),
           UNCONFINED, hole=IPC),
    Attack("message_queue_of_the_machine", "A POSIX message queue of a process outside is read",
           everywhere(CONTAINED, gvisor_2022=UNTESTED), UNCONFINED,
           untested="gVisor's message queues carry nothing"),
    contained("bind_mount", "A directory is mounted over another", 38, control=NO_RIGHTS),
    contained("new_mounts", "Mounts are made, moved or taken away by the newer calls", 38, control=NO_RIGHTS),
    contained("new_namespaces", "User and mount namespaces of its own give the session capabilities", 39),
    Attack("own_confinement_seen", "The session sees that it is confined", everywhere(OPEN),
           "outside of the confinement there is none to see", (49,), hole="nothing is hidden: it would not help"),
)  # fmt: skip

ON_PROGRAMS = (
    Attack("ungranted_program", "A program outside of the grants is run", everywhere(REFUSED), UNCONFINED, (),
           Record(*UNGRANTED, "victims/open/program")),
    Attack("loader_of_an_ungranted_program", "The dynamic loader maps a program outside of the grants",
           everywhere(REFUSED), UNCONFINED, (21,), Record(*UNGRANTED, "victims/open/mapped")),
    refused("copied_program", "A copy of a refused program is run", 22),
    Attack("program_in_shared_memory", "A copy of a refused program is run in /dev/shm",
           everywhere(CONTAINED, gvisor_2022=REFUSED), UNCONFINED, (23,),
           Record(*DANGEROUS, "program-in-shared-memory")),
    refused("program_in_memory", "A refused program is run from a file in memory", 19, control=INSIDE),
    refused("loader", "The dynamic loader runs a refused program", 21, control=INSIDE),
    refused("preloaded_library", "A refused program is run with a preloaded library", 24),
    refused("file_that_bash_reads_first", "BASH_ENV makes an allowed shell run a refused command", 25,
            words="first.sh", control=INSIDE),
    refused("forged_environment", "Variables that name the agent turn it off", 50),
    refused("shell_without_a_terminal", "A shell without a terminal runs a refused command", 51, control=INSIDE),
    refused("own_filter", "A filter of the session's own overrules the agent's", 33, 34),
    Attack("words_that_cannot_be_read", "An exec whose words cannot be read is let through", everywhere(REFUSED),
           "every exec whose words can be read is its control", (54,),
           Record("bash.dangerous", "exec-unreadable", "paths.py")),
)  # fmt: skip

SHOWN = (
    Shown((30,), "argv is rewritten by another thread after the check",
          "tests/enforce/commands/test_supervisor_races.py::test_an_argv_rewritten_by_a_sibling_thread_after_the_check_never_runs"),
    Shown((30,), "The same where execs are traced",
          "tests/escape/test_exec_traced.py::test_arguments_rewritten_after_the_check_never_run"),
    Shown((31,), "The number of a stopped task that died is another's by now",
          "tests/enforce/test_memory.py::test_a_task_that_died_is_gone_even_where_its_number_lives_again"),
    Shown((32,), "The supervisor is killed while an exec is in hand",
          "tests/enforce/commands/test_supervisor_faults.py::test_when_the_supervisor_is_gone_execs_answer_enosys"),
    Shown((33,), "A second listener", "tests/linux/test_seccomp.py::test_a_second_listener_is_ebusy"),
    Shown((44,), "A rule with a trailing slash", "tests/policy/test_load_mistakes.py::"
          "test_a_path_rule_that_no_mechanism_could_enforce_is_an_error"),
    Shown((52,), "What is missing is not started without",
          "tests/escape/test_bad_input.py::"
          "test_require_contained_refuses_where_something_is_missing_and_starts_where_nothing_is"),
    Shown((53,), "No policy, or an empty one, allows nothing",
          "tests/policy/test_decide_paths.py::test_an_empty_section_grants_nothing"),
    Shown((53,), "A policy that raises", "tests/test_gate.py::test_a_policy_that_raises_is_a_denial"),
    Shown((54,), "A fault while a path is looked up",
          "tests/enforce/commands/test_supervisor_faults.py::"
          "test_a_fault_in_the_decision_is_a_recorded_denial_and_supervision_goes_on"),
    Shown((), "A sensitive file is read, by every way, with `paths.audit: reads`", "tests/escape/test_read_audit.py::"
          "test_no_way_to_read_a_sensitive_file_shows_anything_and_each_is_recorded_and_counted"),
    Shown((), "The same while guards die",
          "tests/escape/test_read_audit.py::test_while_guards_die_no_open_goes_on_and_none_is_forgotten"),
)  # fmt: skip

PATHS = Group(
    "paths",
    "Paths and programs",
    "paths.py",
    """\
version: 1
egress:
  allow:
    - {host: allowed.test, protocol: http, ports: [80], addresses: [127.0.0.0/8]}
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
  protect: [.git/hooks, .git/config, .env, "*.pem", "{granted}/settings.json"]
""",
    (*ON_GRANTS, *ON_NEIGHBOURS, *ON_PROGRAMS, *ON_PROTECTED),
    shown=SHOWN,
    parts=("programs.py", "protected.py", "surroundings.py"),
)
