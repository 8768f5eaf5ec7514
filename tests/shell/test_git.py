"""git: what its settings, aliases and options run; what in its words is data."""

from __future__ import annotations

import pytest

from agent.shell.analyse import Analysis, analyse_text
from tests.shell.given import CWD, HOME

DELETE = ("rm", "-rf", "/")


def understood(text: str) -> Analysis:
    return analyse_text(text, cwd=CWD, home=HOME)


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"git -c {key}='rm -rf /' log"
            for key in (
                "core.pager",
                "core.editor",
                "core.sshCommand",
                "CORE.SSHCOMMAND",
                "core.fsmonitor",
                "core.askPass",
                "core.gitProxy",
                "core.alternateRefsCommand",
                "sequence.editor",
                "diff.external",
                "diff.x.command",
                "diff.x.textconv",
                "merge.x.driver",
                "difftool.x.cmd",
                "mergetool.x.cmd",
                "filter.x.clean",
                "filter.x.smudge",
                "filter.x.process",
                "credential.helper",
                "credential.https://x.test.helper",
                "gpg.program",
                "gpg.ssh.program",
                "pager.log",
                "man.x.cmd",
                "browser.x.cmd",
                "uploadpack.packObjectsHook",
                "remote.origin.uploadpack",
                "remote.origin.receivepack",
                "trailer.x.command",
                "interactive.diffFilter",
                "submodule.x.update",
                "sendemail.smtpserver",
                "hook.x.command",
            )
        ),
        "git -c credential.helper='!rm -rf /' fetch",
        "git -C sub -c core.pager='rm -rf /' --paginate log",
        "git -c alias.x='!rm -rf /' x",
        "git -c alias.x='!rm' x -rf /",
        "git -c alias.a=b -c alias.b='!rm -rf /' a",
        "git config alias.x '!rm -rf /'",
        "git config --global alias.x '!rm -rf /'",
        "git config set --global alias.x '!rm -rf /'",
        "git config --add core.sshCommand 'rm -rf /'",
        "git config --global core.editor 'rm -rf /'",
        "git clone -c core.fsmonitor='rm -rf /' u d",
        "git clone --config core.pager='rm -rf /' u d",
        "git clone --config=core.sshCommand='rm -rf /' u d",
        "GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=core.pager GIT_CONFIG_VALUE_0='rm -rf /' git log",
        "GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=alias.x GIT_CONFIG_VALUE_0='!rm -rf /' git x",
        "GIT_CONFIG_PARAMETERS=\"'core.pager=rm -rf /'\" git log",
        "GIT_SSH_COMMAND='rm -rf /' git fetch",
        "GIT_PAGER='rm -rf /' git log",
        "GIT_EDITOR='rm -rf /' git commit",
        "GIT_SEQUENCE_EDITOR='rm -rf /' git rebase -i main",
        "GIT_EXTERNAL_DIFF='rm -rf /' git diff",
        "git rebase -x 'rm -rf /' main",
        "git rebase -i --exec='rm -rf /' main",
        "git rebase --onto a b --exec 'rm -rf /'",
        "git filter-branch --tree-filter 'rm -rf /' HEAD",
        "git filter-branch -f --env-filter 'rm -rf /' HEAD",
        "git submodule foreach 'rm -rf /'",
        "git submodule foreach --recursive --quiet rm -rf /",
        "git submodule --quiet foreach rm -rf /",
        "git bisect run rm -rf /",
        "git bisect run sh -c 'rm -rf /'",
        "git difftool -y -x 'rm -rf /' a b",
        "git difftool --extcmd='rm -rf /'",
        "git clone --upload-pack='rm -rf /' u d",
        "git clone -u 'rm -rf /' u d",
        "git fetch --upload-pack 'rm -rf /' origin",
        "git ls-remote --upload-pack='rm -rf /' u",
        "git push --receive-pack='rm -rf /' o main",
        "git push --exec='rm -rf /' o main",
        "git archive --remote=u --exec='rm -rf /' HEAD",
        "git clone 'ext::sh -c rm% -rf% /' d",
        "git ls-remote ext::'rm -rf /'",
        "git remote add x 'ext::rm -rf /'",
        "git remote-ext x 'rm -rf /'",
        "git grep -O'rm -rf /' x",
        "git grep --open-files-in-pager='rm -rf /' x",
        "git send-email --sendmail-cmd='rm -rf /' x.patch",
        "git instaweb --httpd='rm -rf /'",
        "git daemon --access-hook='rm -rf /'",
    ],
)
def test_what_git_runs_is_found(text: str) -> None:
    assert DELETE in [command.argv for command in understood(text).commands], understood(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("git -c alias.n='reset --hard' n", ("reset", "--hard")),
        ("git -c alias.n=reset n --hard", ("reset", "--hard")),
        ("git config alias.n 'reset --hard'", ("reset", "--hard")),
        ("GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=alias.n GIT_CONFIG_VALUE_0=reset git n --hard", ("reset", "--hard")),
        ("git for-each-repo --config=x reset --hard", ("reset", "--hard")),
    ],
)
def test_an_alias_is_the_command_that_it_stands_for(text: str, words: tuple[str, ...]) -> None:
    found = [command.argv for command in understood(text).commands if command.program == "git"]
    assert words in [argv[-len(words) :] for argv in found[1:]], found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('git -c "core.pager=$X" log', "a shell runs text that is not known"),
        ('git -c "alias.x=!$X" x', "a shell runs text that is not known"),
        ('git -c "$X" log', "a setting of git that is not known"),
        ("git --config-env=core.pager=X log", "a shell runs text that is not known"),
        ("git --config-env core.sshCommand=X log", "a shell runs text that is not known"),
        ("git --exec-path=/tmp/x log", "puts other programs in the place"),
        ('git submodule foreach "$X"', "a shell runs text that is not known"),
    ],
)
def test_what_git_would_run_and_is_not_known_is_said(text: str, reason: str) -> None:
    assert reason in (understood(text).unverifiable or "")


@pytest.mark.parametrize(
    "text",
    [
        "git commit -m 'run: rm -rf /'",
        "git commit -m '--exec=rm -rf /'",
        "git commit -m 'x' -m 'ext::sh -c id'",
        "git log --grep='--exec=rm -rf /'",
        "git log -S 'alias.x=!rm'",
        "git tag -a v1 -m '-c core.pager=rm'",
        "git config user.name 'rm -rf /'",
        "git config --get alias.x",
        "git config --unset alias.x '!rm -rf /'",
        "git -c core.fsmonitor=false status",
        "git -c core.pager=cat log",
        "git -c credential.helper=store fetch",
        "git -c http.proxy=http://127.0.0.1:1 fetch",
        "git push origin main",
        "git stash push -m '--exec rm'",
        "git rebase main",
        "git bisect good",
        "git bisect run",
        "git remote add x https://x.test/y.git",
        "git submodule update --init",
        "git",
    ],
)
def test_data_is_not_run(text: str) -> None:
    found = understood(text)
    assert found.unverifiable is None
    assert [command.program for command in found.commands] == ["git"], found
