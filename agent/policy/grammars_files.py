"""The grammars of programs that read, pack and search files, and of those that run others.

Rules: an option whose value is a file that is read is not listed as valued, so that the file counts as an operand; one
whose value is a pattern, a number or a name to leave out is.

Sources: install(1), ln(1), mv(1), grep(1), rg(1), ag(1), sed(1), gawk(1), perlrun(1), jq(1), tar(1), zip(1), rsync(1),
sudo(8), doas(1), strace(1), ltrace(1).
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.policy.grammar import Grammar, means, names, sub

_GREP = Grammar(
    names(
        "e regexp A B C m d D after-context before-context context max-count include exclude exclude-dir label"
        " binary-files directories devices"
    ),
    means=means(recursive="r R recursive dereference-recursive"),
    script=names("e f regexp file"),
)
_RG = Grammar(
    names(
        "e regexp A B C E M T d g j m r t after-context before-context context max-count glob iglob type type-not"
        " max-depth replace sort sortr threads max-columns color colors encoding"
    ),
    script=names("e f regexp file files type-list"),
)
_SED = Grammar(names("e expression l line-length"), script=names("e f expression file"))
_AWK = Grammar(names("F v e i field-separator assign source include"), script=names("e f source file"))
_TAR = sub(
    "C directory X exclude-from exclude exclude-tag I use-compress-program b H format transform xform owner group mode"
)
_RSYNC = sub(
    "e rsh exclude exclude-from include include-from filter f M T timeout bwlimit", recursive="r recursive a archive"
)
_SUDO = Grammar(
    names("C D g h p R r T t U u close-from chdir group host prompt chroot role command-timeout type other-user user"),
    first=True,
)
_TRACE = Grammar(names("p e o s u E a b I O S P X A D F l n w x attach trace output string-limit user env"), first=True)

FILES: Mapping[str, Grammar] = {
    **dict.fromkeys(("grep", "egrep", "fgrep", "zgrep", "ugrep"), _GREP),
    **dict.fromkeys(("rg", "ag", "ack"), _RG),
    **dict.fromkeys(("sed", "gsed"), _SED),
    **dict.fromkeys(("awk", "gawk", "mawk", "nawk"), _AWK),
    "perl": Grammar(names("e E I"), first=True),
    "jq": Grammar(names("indent L"), script=names("f from-file")),
    "yq": Grammar(script=names("f from-file")),
    **dict.fromkeys(("tar", "gtar", "bsdtar"), _TAR),
    "install": Grammar(names("m o g t S mode owner group target-directory suffix")),
    "ln": Grammar(names("t S target-directory suffix")),
    "mv": Grammar(names("t S target-directory suffix")),
    "zip": Grammar(names("x i b t n P exclude include suffixes")),
    "rsync": _RSYNC,
    **dict.fromkeys(("sudo", "sudo-rs", "doas"), _SUDO),
    **dict.fromkeys(("strace", "ltrace"), _TRACE),
}
