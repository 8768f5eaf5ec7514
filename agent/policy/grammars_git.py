"""How git and the command lines of its hosts read their words.

Sources: git(1) and the manual of each subcommand; ``gh help``, ``glab help``. git resolves abbreviations of long
options by what the subcommand knows (Documentation/technical/api-parse-options).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from agent.policy.grammar import Grammar, family, level, means, names, sub

_PICKED = "U unified inter-hunk-context"
_MERGING = "m message F file s strategy X strategy-option cleanup into-name"

_SUBCOMMANDS: Mapping[str, Grammar] = {
    "add": sub("chmod pathspec-from-file", force="f force", dry_run="n dry-run"),
    "am": sub("directory exclude include patch-format whitespace C p", abort="abort skip"),
    "branch": sub(
        "u set-upstream-to contains no-contains merged no-merged points-at sort format",
        "abbrev all color column contains copy create-reflog delete edit-description force format ignore-case list "
        "merged move no-abbrev no-color no-column no-contains no-merged no-track omit-empty points-at quiet remotes "
        "set-upstream-to show-current sort track unset-upstream verbose",
        force="f force D",
        delete="d D delete",
        move="m M move",
        copy="c C copy",
    ),
    "checkout": sub(
        f"b B orphan conflict pathspec-from-file {_PICKED}",
        "quiet progress force ours theirs track no-track detach orphan ignore-skip-worktree-bits merge conflict patch "
        "ignore-other-worktrees overwrite-ignore recurse-submodules overlay no-overlay pathspec-from-file "
        "pathspec-file-nul guess no-guess unified inter-hunk-context",
        force="f force",
        patch="p patch",
        create="b B orphan",
    ),
    "checkout-index": sub("prefix stage temp", force="f force", all="a all"),
    "cherry-pick": sub("m mainline strategy X strategy-option cleanup", abort="abort"),
    "clean": sub(
        "e exclude",
        "quiet dry-run force interactive exclude",
        force="f force",
        dry_run="n dry-run",
        interactive="i interactive",
        exclude="e exclude",
    ),
    "clone": sub(
        "o origin b branch u upload-pack reference reference-if-able separate-git-dir depth shallow-since "
        "shallow-exclude template c config j jobs filter server-option bundle-uri"
    ),
    "commit": sub(
        "m message F file C reuse-message c reedit-message fixup squash author date t template cleanup "
        "pathspec-from-file trailer",
        no_verify="n no-verify",
        all="a all",
    ),
    "config": sub(
        "f file blob type default comment value url",
        lower=True,
        skipped="set",
        read="get get-all get-regexp get-urlmatch get-color get-colorbool l list name-only show-origin",
    ),
    "diff log show": sub("S G O n max-count author grep since until after before format pretty U unified"),
    "fetch pull": sub(
        "depth deepen shallow-since shallow-exclude j jobs upload-pack o server-option refmap s strategy "
        "X strategy-option negotiation-tip",
        force="f force",
    ),
    "gc": sub(longs="aggressive auto prune quiet force keep-largest-pack cruft detach", force="force"),
    "merge": sub(
        _MERGING,
        "abort allow-unrelated-histories autostash cleanup commit continue edit ff ff-only file gpg-sign into-name log "
        "message overwrite-ignore progress quiet quit rerere-autoupdate signoff squash stat strategy strategy-option "
        "verbose verify verify-signatures no-verify no-commit no-edit no-ff no-log no-stat no-squash",
    ),
    "push send-pack": sub(
        "o push-option repo receive-pack exec",
        "all atomic branches delete dry-run exec follow-tags force force-if-includes force-with-lease ipv4 ipv6 mirror "
        "no-verify porcelain progress prune push-option quiet receive-pack recurse-submodules repo set-upstream signed "
        "tags thin verbose verify",
        force="f force",
        delete="d delete",
        dry_run="n dry-run",
    ),
    "read-tree": sub("prefix index-output exclude-per-directory", update="u"),
    "rebase": sub(
        "onto s strategy X strategy-option x exec C whitespace empty",
        "abort apply autosquash autostash committer-date-is-author-date continue edit-todo empty exec force-rebase "
        "fork-point gpg-sign ignore-date ignore-whitespace interactive keep-base keep-empty merge no-ff no-stat "
        "no-verify onto quiet quit rebase-merges reapply-cherry-picks rerere-autoupdate reschedule-failed-exec "
        "reset-author-date root show-current-patch signoff skip stat strategy strategy-option update-refs verbose "
        "verify whitespace",
        interactive="i interactive",
    ),
    "reflog": level({"expire delete drop": sub("expire expire-unreachable", dry_run="n dry-run"), "show list": sub()}),
    "remote": level(
        {"add": sub("t m mirror"), "set-url": sub(), "remove rm prune rename set-head show get-url": sub()}
    ),
    "repack": sub("window depth threads max-pack-size filter filter-to expire-to cruft-expiration", delete="d"),
    "reset": sub(
        f"pathspec-from-file {_PICKED}",
        "quiet refresh mixed soft hard merge keep recurse-submodules patch intent-to-add pathspec-from-file "
        "pathspec-file-nul unified inter-hunk-context",
    ),
    "restore": sub(
        f"s source conflict pathspec-from-file {_PICKED}",
        "source staged worktree ignore-unmerged overlay quiet recurse-submodules progress merge conflict ours theirs "
        "patch ignore-skip-worktree-bits pathspec-from-file pathspec-file-nul unified inter-hunk-context help version",
        staged="S staged",
        worktree="W worktree",
        patch="p patch",
        source="s source",
        help="h help",
    ),
    "rm": sub(
        "pathspec-from-file",
        "dry-run quiet cached force ignore-unmatch sparse pathspec-from-file pathspec-file-nul",
        force="f force",
        dry_run="n dry-run",
        recursive="r",
    ),
    "stash": level(
        {
            "push save": sub("m message pathspec-from-file", patch="p patch"),
            "drop clear pop apply list show branch store create": sub(),
        }
    ),
    "submodule": level(
        {"deinit": sub(force="f force"), "add update set-url set-branch sync foreach init": sub("b branch")}
    ),
    "switch": sub(
        "c create C force-create orphan conflict",
        "create force-create guess no-guess discard-changes quiet recurse-submodules progress merge conflict detach "
        "track no-track force orphan ignore-other-worktrees overwrite-ignore",
        force="f force discard-changes",
    ),
    "symbolic-ref": sub("m", delete="d delete"),
    "tag": sub(
        "m message F file u local-user contains no-contains points-at sort format cleanup trailer",
        "annotate sign no-sign force delete verify list sort color ignore-case column contains no-contains merged "
        "no-merged points-at message file edit cleanup local-user create-reflog format omit-empty trailer",
        force="f force",
        delete="d delete",
    ),
    "update-ref": sub("m", delete="d"),
    "worktree": level(
        {
            "remove": sub(longs="force", force="f force"),
            "add": sub("b B reason"),
            "list lock move prune repair unlock": sub("reason expire"),
        }
    ),
}

_GIT = Grammar(
    valued=names("C c git-dir work-tree namespace exec-path config-env super-prefix attr-source list-cmds"),
    means=means(force="f force", delete="d D delete", recursive="r", hard="hard"),
    under=level(_SUBCOMMANDS).under,
)

_GH = family(
    sub("R repo hostname jq q json t template"),
    {
        "api": sub("X method f raw-field F field H header input p preview cache", method="X method"),
        "repo": level({"delete archive edit rename create clone fork sync view list": sub("d description h homepage")}),
        "release secret variable gist ssh-key gpg-key run workflow cache label issue pr auth": level(
            {
                "delete create upload edit set list view": sub(
                    "t title n notes F notes-file b body a app e env o org target", draft="d draft"
                )
            }
        ),
    },
)

GIT: Mapping[str, Grammar] = MappingProxyType({"git": _GIT, "gh": _GH, "glab": _GH})
