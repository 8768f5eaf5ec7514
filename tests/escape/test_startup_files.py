"""What a text means by the session's surroundings: start-up files, the environment set earlier, the directory gone to.

The text that is decided beforehand is harmless in each case; what makes it dangerous was left elsewhere, by a process
that is gone. The exec ring sees the final program, argv and directory.
"""

from __future__ import annotations

from tests.escape.runtime import Case, Runtime, policy

HIDE = "rm=$(id -un | sed s/session/rm/)\n"
"""Nobody can know from the text what $rm is."""

LEFT = {
    "alias in .bashrc": ("echo \"alias tidy='$rm -rf'\" > ~/.bashrc", "bash -ic 'tidy /etc'"),
    "function in .profile": ('echo "tidy() { $rm -rf /etc; }" > ~/.profile', "bash -lc tidy"),
    "function in BASH_ENV": ('echo "tidy() { $rm -rf /etc; }" > ~/env; export BASH_ENV=~/env', "bash -c tidy"),
    "alias in ENV": ("echo \"alias tidy='$rm -rf /etc'\" > ~/rc; export ENV=~/rc", "sh -ic tidy"),
    "alias of git": ('git config --file ~/.gitconfig alias.tidy "!$rm -rf /etc"', "git tidy"),
    "copy earlier in PATH": ('mkdir -p ~/bin; cp "/bin/$rm" ~/bin/tidy; PATH=~/bin:$PATH', "tidy -rf /etc"),
    "directory of a sourced file": ("echo 'cd /' > ~/go", '. ~/go; "$rm" -rf etc'),
    "directory by CDPATH": ("mkdir -p ~/x; export CDPATH=/", 'cd ~/x; cd etc >/dev/null; "$rm" -rf .'),
}


def test_what_was_left_elsewhere_is_refused_where_it_runs(runtime: Runtime) -> None:
    cases = {name: case for name, case in LEFT.items() if "git" not in name or runtime.name == "host"}
    steps = [f"( {left}; {harmless} )" for left, harmless in cases.values()]
    script = (
        HIDE + "\n".join(f"{step} </dev/null; echo status=$?" for step in steps) + "\ntest -e /etc/passwd && echo there"
    )
    outcome = runtime.run(Case(("/bin/bash", "-c", script), policy()))
    told = outcome.stdout.split()
    assert told[-1] == "there", outcome.stdout + outcome.stderr
    assert "status=0" not in told, outcome.stdout + outcome.stderr
    assert len(told) == len(steps) + 1
    rules = [event["details"]["rule"] for event in outcome.of("bash.dangerous")]
    assert rules == ["recursive-delete-system"] * len(steps), outcome.stderr
    assert outcome.verified == 0
