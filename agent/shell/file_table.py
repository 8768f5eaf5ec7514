"""The programs whose words are files, and what each does to them: the one table of it, with those that have a way of
their own behind it in `agent.shell.file_ways`.

Rules kept here: a form lists what is common and certain; an option that is not listed leaves the command unasked, so
none is listed whose effect on the operands is not known. Programs that walk whole trees only to look (ls, find, du,
stat) are no readers. ``cp -n``, ``mv -n`` and the like, which may do nothing, are left out.

Sources: the manual pages of coreutils, util-linux, grep(1), sed(1), gawk(1), jq(1), diff(1), patch(1), gzip(1),
bzip2(1), xz(1), zip(1), rsync(1), scp(1), wget(1), setfacl(1), chattr(1), less(1), more(1), xxd(1), strings(1),
iconv(1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from agent.shell.file_uses import Form, How, Used, files_by_form, masked
from agent.shell.file_ways import WAYS

_READ, _WRITE, _PLACE, _REMOVE = How.READ, How.WRITE, How.PLACE, How.REMOVE
_MAKE, _CHANGE = How.MAKE, How.CHANGE


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _reader(short: str = "", long: str = "") -> Form:
    return Form(short, long, _READ)


def _same(programs: str, form: Form) -> Mapping[str, Form]:
    return dict.fromkeys(programs.split(), form)


_DIGITS: Final = "0123456789"
_TREE: Final = "changes dereference no-dereference from= preserve-root silent quiet recursive verbose reference="
_OWNER: Final = Form(
    "cfhvRHLP",
    _TREE,
    _WRITE,
    (None,),
    _names("reference"),
    {"reference": _READ},
    {"h": _PLACE, "no-dereference": _PLACE},
)
_INTO_LONGS: Final = "force verbose target-directory= no-target-directory suffix= "
_GREP: Final = Form(
    "EFGPivwxcLloqsHhnZzUarRITbe:f:A:B:C:m:d:D:" + _DIGITS,
    "extended-regexp fixed-strings basic-regexp perl-regexp ignore-case invert-match word-regexp line-regexp count "
    "color files-with-matches files-without-match max-count= only-matching quiet silent no-messages with-filename "
    "no-filename line-number null text recursive dereference-recursive regexp= file= after-context= before-context= "
    "context= include= exclude= exclude-dir= binary-files= line-buffered",
    _READ,
    (None,),
    _names("e f regexp file"),
    {"f": _READ, "file": _READ},
    {"s": None, "no-messages": None},
)
_SED: Final = Form(
    "nEruszl:e:f:i::",
    "quiet silent regexp-extended unbuffered separate null-data expression= file= in-place debug posix line-length=",
    _READ,
    (None,),
    _names("e f expression file"),
    {"f": _READ, "file": _READ},
    {"i": _PLACE, "in-place": _PLACE},
)
_SUM: Final = _reader("btz", "binary text tag zero")
_PACKS: Final = dict.fromkeys(("c", "k", "l", "t", "stdout", "to-stdout", "keep", "list", "test"), _READ)
_PACK: Final = Form(
    "cdfhklLNnqtvez123456789S:T:",
    "stdout to-stdout decompress uncompress compress force keep list test no-name name quiet verbose fast best suffix= "
    "threads= extreme",
    _REMOVE,
    instead=_PACKS,
)

_READERS: Final[Mapping[str, Form]] = {
    "cat": _reader("AbeEnstTuv", "show-all number number-nonblank show-ends show-tabs show-nonprinting squeeze-blank"),
    "tac": _reader("br"),
    "rev": _reader(),
    "nl": _reader("pb:d:f:h:i:l:n:s:v:w:"),
    **_same("head tail", _reader("qvz" + _DIGITS + "n:c:", "quiet silent verbose lines= bytes=")),
    "less": _reader("eEFgiIMnNRSX"),
    "more": _reader("dflpcsu"),
    **_same("bat batcat", _reader("pAnfl:", "plain number show-all language= style= paging= color= decorations=")),
    "od": _reader("abcdfiloxvA:j:N:t:w:", "address-radix= skip-bytes= read-bytes= format= width output-duplicates"),
    **_same("hexdump hd", _reader("bCcdovxn:s:e:", "canonical length= skip= no-squeezing")),
    **_same("base64 base32", _reader("diw:", "decode ignore-garbage wrap=")),
    "strings": _reader("afn:t:e:" + _DIGITS, "all bytes= radix= encoding="),
    "wc": _reader("cmlLw", "bytes chars lines words max-line-length"),
    **_same("md5sum sha1sum sha224sum sha256sum sha384sum sha512sum", _SUM),
    **_same("b2sum cksum sum", _reader("l:rs")),
    "cut": _reader("szb:c:d:f:", "bytes= characters= delimiter= fields= complement only-delimited output-delimiter="),
    "paste": _reader("szd:", "delimiters= serial zero-terminated"),
    "fold": _reader("bsw:", "width= spaces bytes"),
    **_same("fmt expand unexpand", _reader("ait:w:")),
    "join": _reader("i1:2:a:e:j:o:t:v:"),
    "comm": _reader("123z", "output-delimiter= nocheck-order check-order total"),
    "cmp": _reader("blsn:i:", "bytes= ignore-initial= print-bytes quiet silent verbose"),
    "diff": _reader("abBcdeEilnNpqrstTuwyU:C:W:x:I:" + _DIGITS, "brief unified recursive color side-by-side new-file"),
    "shuf": Form("rzn:i:o:e", "head-count= input-range= output= echo", _READ, takes={"o": _WRITE}, instead={"e": None}),
    "sort": Form(
        "bcCdfghiMmnrRsuVzk:S:t:T:o:",
        "key= field-separator= output= numeric-sort reverse unique stable ignore-case human-numeric-sort version-sort",
        _READ,
        takes={"o": _WRITE, "output": _WRITE},
    ),
    "uniq": Form("cdDiuzf:s:w:", "count repeated unique ignore-case", places=(_READ, _WRITE)),
    "iconv": Form("clf:t:o:", "from-code= to-code= output=", _READ, takes={"o": _WRITE, "output": _WRITE}),
    "xxd": Form("abEipruc:g:l:s:o:", places=(_READ, _WRITE)),
    **_same("grep egrep fgrep", _GREP),
    **_same("zcat bzcat xzcat zstdcat", _reader("fqv")),
    "rg": Form(
        "iSsvwxclonNHIhuzLaFPU0e:f:A:B:C:m:g:t:T:j:r:M:d:E:",
        "hidden no-ignore glob= type= regexp= context= max-count= color= ignore-case line-number no-heading",
        _READ,
        (None,),
        _names("e f regexp file"),
    ),
    **_same("awk gawk mawk nawk", Form("F:v:f:", "", _READ, (None,), _names("f"), {"f": _READ}, first=True)),
    "jq": Form(
        "rceCMSsajn", "raw-output compact-output exit-status slurp sort-keys tab", _READ, (None,), instead={"n": None}
    ),
}

_WRITERS: Final[Mapping[str, Form]] = {
    "tee": Form("aip", "append ignore-interrupts output-error", _WRITE),
    "truncate": Form(
        "cos:r:",
        "no-create io-blocks size= reference=",
        _WRITE,
        takes={"r": _READ, "reference": _READ},
        instead={"c": _CHANGE, "no-create": _CHANGE},
    ),
    "touch": Form(
        "acmfhd:t:r:",
        "no-create no-dereference date= reference= time=",
        _WRITE,
        takes={"r": _READ, "reference": _READ},
        instead={"c": _CHANGE, "no-create": _CHANGE, "h": _PLACE, "no-dereference": _PLACE},
    ),
    "rm": Form("rRfivdI", "recursive force interactive verbose dir one-file-system preserve-root", _REMOVE),
    "rmdir": Form("pv", "parents verbose ignore-fail-on-non-empty", _REMOVE),
    "unlink": Form(each=_REMOVE),
    "shred": Form("fuvxzn:s:", "force iterations= size= remove verbose exact zero", _WRITE),
    "mkdir": Form("pvm:", "parents verbose mode=", _MAKE),
    "mkfifo": Form("m:", "mode=", _PLACE),
    "mknod": Form("m:", "mode=", places=(_PLACE,)),
    "link": Form(places=(None, _PLACE)),
    "chmod": Form("cfvRrwxXstugo", _TREE, _WRITE, (None,), _names("r w x X s t u g o reference"), {"reference": _READ}),
    **_same("chown chgrp", _OWNER),
    "chattr": Form("RVf", "", _WRITE, (None,)),
    "setfacl": Form("bkRLPdnm:x:M:", "modify= remove= remove-all recursive default", _WRITE),
    **_same("sed gsed", _SED),
    **_same("gzip gunzip bzip2 bunzip2 xz unxz", _PACK),
    "zip": Form("rqjyuv9", "", _READ, (_WRITE,)),
    "split": Form("dxua:b:C:l:n:t:", "bytes= lines= number= suffix-length= numeric-suffixes", places=(_READ, _WRITE)),
    "patch": Form(
        "belNRsftup:i:o:F:",
        "strip= input= output= batch forward reverse silent force fuzz= dry-run",
        places=(_PLACE, _READ),
        takes={"i": _READ, "input": _READ, "o": _WRITE, "output": _WRITE},
        instead={"dry-run": None},
    ),
}

_MOVERS: Final[Mapping[str, Form]] = {
    "cp": Form(
        "apdfrRvLuHPxlTt:S:",
        _INTO_LONGS + "archive recursive no-dereference dereference update preserve link reflink sparse",
        _READ,
        into=_WRITE,
        into_forced=_PLACE,
    ),
    "mv": Form("fvuTt:S:", _INTO_LONGS + "update", _REMOVE, into=_PLACE),
    "ln": Form("sfvinbLPrTt:S:", _INTO_LONGS + "symbolic no-dereference relative", into=_PLACE, lone=True),
    "install": Form(
        "cCDpsTvdm:o:g:S:t:",
        _INTO_LONGS + "compare directory mode= owner= group= preserve-timestamps strip",
        _READ,
        into=_PLACE,
        instead={"d": _MAKE, "directory": _MAKE},
    ),
    "rsync": Form(
        "avzrlptgoDHAXSxPhucmWdKkEne:B:f:M:T:",
        "archive verbose compress recursive links perms times group owner delete progress partial stats human-readable "
        "checksum update existing ignore-existing inplace exclude= include= exclude-from= include-from= rsh= bwlimit= "
        "timeout= delete-after delete-before delete-during delete-excluded delete-delay mkpath info= no-owner no-group "
        "no-perms numeric-ids size-only one-file-system filter= chmod= chown= quiet dry-run copy-links",
        _READ,
        into=_PLACE,
        instead={"n": None, "dry-run": None},
        remote=True,
        contents=True,
    ),
    "scp": Form("346ABCOpqRrTvc:D:F:i:J:l:o:P:S:X:", "", _READ, into=_WRITE, remote=True),
}

_FETCHERS: Final[Mapping[str, Form]] = {
    "wget": Form(
        "qvbcNxrkpmEHLSdh46nO:o:a:P:i:t:T:U:w:Q:e:l:A:D:I:X:R:B:",
        "output-document= output-file= append-output= directory-prefix= input-file= header= user-agent= post-data= "
        "user= password= tries= timeout= post-file=",
        takes={
            **dict.fromkeys(("O", "output-document", "o", "output-file", "a", "append-output"), _WRITE),
            **dict.fromkeys(("P", "directory-prefix"), _WRITE),
            **dict.fromkeys(("i", "input-file", "post-file"), _READ),
        },
        instead={"spider": None},
        loose=True,
    ),
}

FORMS: Final[Mapping[str, Form]] = MappingProxyType({**_READERS, **_WRITERS, **_MOVERS, **_FETCHERS})


def files_of(program: str, argv: Sequence[str], globs: Sequence[int]) -> Iterator[Used]:
    """The files that `argv` (of base name `program`) certainly names, as they are written. `globs`: the positions of
    words that the shell has still to expand."""
    form, way = FORMS.get(program), WAYS.get(program)
    words = masked(argv, globs) if form is not None or way is not None else None
    if words is None:
        return
    if form is not None:
        yield from files_by_form(form, words)
    elif way is not None:
        yield from way(words)
