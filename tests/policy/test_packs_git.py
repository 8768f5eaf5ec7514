"""The pack git: which rule refuses what, in many spellings, and what stays free."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.policy.shipped import said

REFUSED = {
    "git-reset-hard": [
        "git reset --hard",
        "git reset --hard origin/main",
        "git reset -q --har HEAD~1",
        "git --git-dir=x/.git --work-tree x reset --hard",
        "git -C x -c a.b=c reset --mer",
        "/usr/bin/git reset --hard",
        "sudo env A=1 nice git reset --hard",
        "bash -c 'cd x && git reset --hard'",
        "git 're'set --ha\\rd",
        "true; git fetch && git reset --hard @{u}",
        "find . -name .git -execdir git reset --hard ';'",
        "echo HEAD~1 | xargs git reset --hard",
        "docker exec c git reset --hard",
        "python3 -c \"import os; os.system('git reset --hard')\"",
        "git -c alias.nuke='reset --hard' nuke",
    ],
    "git-checkout-paths": ["git checkout -- .", "git checkout HEAD -- a b", "git checkout --ours -- a"],
    "git-checkout-tree-and-paths": ["git checkout HEAD a", "git checkout -q main a b", "git checkout --detach x y"],
    "git-checkout-everything": ["git checkout .", "git checkout ./src"],
    "git-checkout-force": [
        "git checkout -f",
        "git checkout --forc main",
        "git checkout -qf main",
        "git switch -f main",
        "git switch --discard-changes main",
        "git checkout -p",
        "git checkout HEAD --pathspec-from-file paths",
    ],
    "git-read-tree": ["git read-tree --reset -u HEAD", "git -C d read-tree -u --reset HEAD"],
    "git-restore": ["git restore a", "git restore .", "git restore -s HEAD~1 a", "git restore -- --staged"],
    "git-restore-worktree": ["git restore -SW a", "git restore --staged --workt a"],
    "git-restore-chosen": ["git restore -p", "git restore --pathspec-from-f=-"],
    "git-clean": ["git clean -f", "git clean -xdf", "git clean -d --force", "git clean -n --no-dry-run -f"],
    "git-clean-unasked": ["git -c clean.requireForce=false clean", "git -c clean.requireforce=0 clean -d"],
    "git-rm-force": ["git rm -f a", "git rm -rf ."],
    "git-stash-drop": ["git stash drop", "git stash clear", "git -C x stash drop stash@{2}"],
    "git-abort": ["git merge --abort", "git rebase --abor", "git cherry-pick --abort", "git am --abort"],
    "git-worktree-force": ["git worktree remove --force x", "git worktree remove x -f", "git submodule deinit -f x"],
    "git-directory-delete": ["rm -rf .git", "rm -r x/y/.git", "sudo rm -rf ./.git/", "rm -rf .git/*"],
    "git-branch-force": [
        "git branch -D x",
        "git branch -d --force x",
        "git branch -f main HEAD~9",
        "git branch -rD o/x",
    ],
    "git-tag-delete": ["git tag -d v1", "git tag --delete v1 v2", "git tag -f v1", "git tag -fa v1 -m x"],
    "git-ref-delete": ["git update-ref -d refs/heads/x", "git update-ref --stdin", "git symbolic-ref -d HEAD"],
    "git-ref-move": ["git update-ref refs/heads/main HEAD~3", "git update-ref -m x refs/heads/a b"],
    "git-fetch-over": ["git fetch origin +main:main", "git fetch . '+refs/heads/a:refs/heads/b'"],
    "git-reflog": ["git reflog expire --expire=now --all", "git reflog delete HEAD@{0}"],
    "git-prune": ["git prune", "git prune --expire=now"],
    "git-gc-prune": ["git gc --prune=now", "git gc --aggressive --prune=all"],
    "git-rewrite-history": ["git filter-branch --index-filter x HEAD", "git filter-repo --path a"],
    "git-rewrite-tools": ["bfg --strip-blobs-bigger-than 1M", "git-filter-repo --force"],
    "git-push-force": [
        "git push --force",
        "git push --force=true origin main",
        "git push -f --force-with-lease",
        "git push -uf origin main",
        "git push origin main --forc",
        "git push --force --no-dry-run",
    ],
    "git-push-force-refspec": [
        "git push origin +main",
        "git push origin refs/heads/a:+refs/heads/b",
        "git push -- o +a",
    ],
    "git-push-delete": ["git push --delete origin x", "git push origin -d x", "git push --mir o", "git push --prune o"],
    "git-push-delete-refspec": ["git push origin :x", "git push origin :refs/heads/x"],
    "git-remote-url": ["git remote set-url origin u", "git remote set-url --push origin u"],
    "git-no-verify": [
        "git commit --no-verify -m x",
        "git commit -anm x",
        "git push --no-verify",
        "git commit --no-v -m x",
    ],
    "git-config-programs": [
        "git config --global CORE.SSHCOMMAND x",
        "git config --file f --add core.askPass ./x",
        "git config set --local credential.helper '!f'",
        "git config url.x.insteadOf y",
        "git config http.sslVerify false",
    ],
    "git-config-programs-everywhere": [
        "git config --global core.hooksPath x",
        "git config --system --add ALIAS.x '!sh'",
        "git config set --global core.editor x",
    ],
    "git-transport-program": ["GIT_SSH_COMMAND=x git fetch", "env GIT_SSH=./x git push", "GIT_ASKPASS=./x git clone u"],
    "git-transport-program-remote": ["GIT_SSH_COMMAND=x git remote update", "GIT_SSH=x git remote -v show origin"],
    "git-transport-setting-variable": ["GIT_CONFIG_PARAMETERS=\"'core.sshCommand=x'\" git fetch"],
    "git-transport-setting": ["git -c core.sshCommand=x fetch", "git -c http.sslVerify=0 clone u"],
    "git-hooks-elsewhere": ["git -c core.hooksPath=/dev/null commit -m x", "git -c core.fsmonitor=x status"],
    "git-archive-remote": ["git archive --remote=u HEAD"],
    "git-host-delete": ["gh repo delete a/b --yes", "gh -R a/b release delete v1", "glab repo delete a/b"],
    "git-host-api-delete": ["gh api --method DELETE repos/a/b", "gh api -XDELETE repos/a/b"],
    "git-host-exposure": ["gh repo edit --visibility=public"],
    "git-host-credentials": ["gh auth token", "gh secret set A", "glab variable set A b"],
}

FREE = [
    "git status",
    "git commit -m 'git reset --hard' -m 'and git push --force'",
    "git commit --amend --no-edit",
    "git checkout main",
    "git checkout -",
    "git checkout -qbfeature",
    "git checkout -b x origin/main",
    "git checkout --orphan pages",
    "git checkout --track -q main",
    "git checkout main --",
    "git switch -C fixup",
    "git restore --staged .",
    "git restore -S a b",
    "git restore --recurse-submodules --staged a",
    "git reset",
    "git reset HEAD a",
    "git reset --soft HEAD~1",
    "git clean -nfd",
    "git rm -r d",
    "git rm -f --cached a",
    "git stash",
    "git stash pop",
    "git branch -d x",
    "git branch -M main",
    "git tag v1",
    "git push",
    "git push origin main",
    "git push --force-with-lease",
    "git push --tags",
    "git push origin HEAD:topic",
    "git push -n --force",
    "git pull --rebase",
    "git fetch origin '+refs/heads/*:refs/remotes/origin/*'",
    "git rebase main",
    "git merge topic",
    "git worktree remove x",
    "git gc",
    "git reflog",
    "git config user.name x",
    "git config --get core.sshCommand",
    "git config core.hooksPath .husky",
    "git -c core.editor=true rebase --continue",
    "git remote add fork u",
    "git log --grep 'push --force'",
    "GIT_EDITOR=true git rebase --continue",
    "echo git reset --hard",
    "rm -rf build dist",
    "gh pr create --fill",
    "gh api repos/a/b",
]


_GLOBALS = st.lists(
    st.sampled_from(["-C d", "-c a.b=c", "--no-pager", "--git-dir=x", "--work-tree w", "-p"]), max_size=3
)
_FLAGS = st.lists(st.sampled_from(["-q", "-v", "-u", "--tags", "--repo=r", "-o x"]), max_size=3)


@given(_GLOBALS, _FLAGS, st.sampled_from(["-f", "--force", "--forc", "-uf", "-qfv"]), _FLAGS, st.booleans())
def test_a_forced_push_is_found_among_any_options(
    before: list[str], first: list[str], force: str, then: list[str], late: bool
) -> None:
    words = [
        "git",
        *before,
        "push",
        *first,
        *([] if late else [force]),
        "origin",
        "main",
        *then,
        *([force] if late else []),
    ]
    assert said("git", " ".join(words)) == "git-push-force"
