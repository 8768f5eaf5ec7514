"""Which options and operands of which programs run, read or write something: the table, in the language of
`agent.shell.carriers`.

Rules: a row says only what the program's manual says; what merely names a script or a configuration file is not here (a
file is read when it is executed, not when it is named). Programs that run the command behind their options are in
`agent.shell.wrappers` and `agent.shell.runners`; git has a module of its own.
"""

from __future__ import annotations

from typing import Final

from agent.shell.carriers import Table
from agent.shell.carriers_databases import DATABASES
from agent.shell.carriers_languages import LANGUAGES
from agent.shell.carriers_others import OTHERS

_ARCHIVES = r"""
tar gtar bsdtar star:
    bundled
    valued bCfgHKLNTVX --file --directory --checkpoint --format --owner --group --mode --exclude --transform --xform
    -I --use-compress-program    text
    -F --info-script --new-volume-script    text
    --to-command    text
    --checkpoint-action    text    exec=
    --rsh-command --rmt-command    words
    --index-file    writes
    -T --files-from -X --exclude-from    reads
    --remove-files    deletes
cpio:
    valued CDEFHIMORW
    --rsh-command    words
    -O    writes
zip:
    valued bnti
    -TT --unzip-command    text
    -m --move    deletes
7z 7za 7zr 7zz:
    -sdel    deletes
rimraf del-cli del trash trash-put rmtrash srm wipe safe-rm rmz:
    first    deletes
gio:
    first    deletes    (?=trash$|remove$)
install ginstall:
    --strip-program    program
"""

_TEXTS = r"""
sort gsort:
    valued kStT
    --compress-program    program
    -o --output    writes
shuf gshuf:
    valued inr
    -o --output    writes
split gsplit:
    valued abCln
    --filter    text
diff3 sdiff:
    --diff-program    program
rg:
    valued gtTAeBCmjMdEr --glob --type --regexp --max-count
    --pre    program
    --hostname-bin    program
    -f --file    reads
grep egrep fgrep ggrep zgrep ag ack:
    valued eABCmdD --regexp --include --exclude --exclude-dir
    -f --file    reads
    --pager    text
bat batcat delta:
    --pager    text
less zless pager most:
    valued bhjkptTxyz
    +    says:less
    -o -O --log-file --LOG-FILE    writes
man:
    valued CRLmMSersEpT
    -P --pager    text
    -H --html    text
ed red gred:
    stdin    says:ed
vim vi nvim ex view gvim rvim vimdiff nvimdiff gview evim vimx nex elvis nvi:
    -S -u -s    file:vim
    valued drwWiTVoOpUt
    -c --cmd    says:vim
    +    says:vim
ex:
    stdin    says:vim
emacs emacsclient xemacs emacs-nox jove:
    apart
    -l --load --script -script    script:elisp
    -eval --eval -execute --execute -e    code:elisp
nano pico rnano:
    -s --speller    text
kak:
    -e -E    says:kakoune
lynx:
    -editor    text
exiftool:
    -if    code:perl
rename prename file-rename perl-rename:
    first    code:perl
pandoc:
    -F --filter    program
    --pdf-engine    program
    -o --output    writes
tex latex pdftex pdflatex xetex xelatex luatex lualatex:
    operand    says:tex
gs ghostscript ps2pdf:
    apart
    -sOutputFile    text    %pipe%
    -o    text    %pipe%
    -c    says:postscript
convert magick mogrify identify composite montage display:
    operand    text    \|
fzf sk:
    --preview    text
    --bind    text    .*?(?:execute|execute-silent|become|reload|transform\S*?|preview)[(:\[{](.*?)[)\]}]?$
gnuplot:
    -e    says:gnuplot
    alone    says:gnuplot
dc:
    -e --expression    says:bang
    stdin    says:bang
"""

_NETWORK = r"""
ssh autossh scp sftp sshfs slogin ssh-copy-id sshd:
    valued BbcDEeFIiJLlmOPpQRWw
    -o    text    (?:Proxy|Local|KnownHosts|AuthorizedKeys|AuthorizedPrincipals|Force)Command(?:=|\s)\s*(?!none$)
    -o    loads    (?:PKCS11Provider|SecurityKeyProvider)(?:=|\s)\s*(?!none$|internal$)
    -o    words    (?:ssh_command|sftp_server)=
    -I    loads
scp sftp sshfs:
    -S -D    program
sftp lftp ftp telnet tnftp smbclient:
    stdin    says:bang
    -c -e    says:bang
ssh-keygen:
    -D    loads
ssh-add:
    -s    loads
mosh:
    --ssh --server --client    words
rsync:
    valued fTBM --exclude --include --filter --log-file --out-format --chmod --chown --backup-dir
    -e --rsh    words
    --rsync-path    text
    --files-from --password-file --exclude-from --include-from    reads
curl:
    valued AbcDeEFhHKmPQrtuUwxXyYz
    -o --output -D --dump-header -c --cookie-jar --trace --trace-ascii --stderr --etag-save --libcurl    writes
    -d --data --data-binary --data-raw --data-ascii --data-urlencode --json    reads    [\w-]*@
    -F --form    reads    [^=]*=[@<]([^;]*)
    -H --header -b --cookie    reads    @
    -T --upload-file -K --config --netrc-file --key --cert -E    reads
    --engine    loads
wget wget2:
    valued tTwQPUBAReIXDl
    --use-askpass    program
    -e --execute    program    \s*use_?askpass\s*=\s*
    -O --output-document -o --output-file -a --append-output --save-cookies    writes
    --post-file --body-file -i --input-file --load-cookies    reads
aria2c:
    -o --out    writes
    --on-download-start --on-download-complete --on-download-error --on-download-stop    program
    --on-download-pause --on-bt-download-complete    program
nc ncat netcat nc.traditional nc.openbsd:
    valued iIMmoOpPqsTVwXx
    -e --exec -c --sh-exec    network
    --lua-exec    loads
socat socat1:
    operand    network    (?:EXEC|SYSTEM|SHELL):((?:[^,\\]|\\.)*)
nmap:
    --script    loads    (?=.*(?:/|\.nse))
    -oN -oX -oG -oA -oS    writes
tcpdump:
    valued BcCEFGiIjmMrsTVWy
    -z    program
    -w    writes
openssl:
    apart
    -engine -provider -provider-path --engine    loads
    -out    writes
    -in    reads
openvpn:
    --up --down --route-up --route-pre-down --ipchange --client-connect --client-disconnect    words
    --learn-address --tls-verify --auth-user-pass-verify --tls-crypt-v2-verify --iproute    words
    --plugin    loads
dnsmasq:
    -6 --dhcp-script --conf-script    text
dhclient:
    -sf    program
pppd:
    operand    text    connect\s+
iptables ip6tables ip6tables-legacy iptables-legacy:
    --modprobe    program
mail mailx s-nail mutt neomutt:
    -e -E --exec    says:bang
git-shell:
    -c    text
"""

_WORK = r"""
make gmake remake bmake:
    valued CIjlOWo
    -E --eval    says:make
    operand    program    SHELL=
    -f --file --makefile    file:make
    default    file:make    Makefile|makefile|GNUmakefile
just:
    -c --command    rest
    --shell --chooser    program
    -f --justfile    file:make
    default    file:make    justfile|Justfile|.justfile
ninja samu:
    -f    file:make
    default    file:make    build.ninja
rake:
    -e -E -p --execute --execute-print --execute-continue    code:ruby
rails:
    operand    code:ruby    (?=.*[(`;\s])
gcc g++ cc c++ clang clang++ cpp gfortran:
    apart
    -wrapper    text    ([^,]*)
    -fplugin    loads
    -o    writes
cargo:
    --config    words    .*?(?:runner|rustc|rustc-wrapper|rustc-workspace-wrapper|linker)\s*=\s*['"\[]*(.*?)['"\]]*$
go:
    -exec --exec -toolexec --toolexec -vettool --vettool    words
bazel bazelisk:
    --run_under    text
mvn mvnw:
    -Dexec.executable    program
dpkg apt apt-get aptitude apt-cache apt-mark:
    valued ct
    -o --option    text    (?:DPkg::|APT::)[\w:-]*(?:Invoke|Install-Pkgs)[\w:-]*(?:::)?=
    -o --option    program    Dir::Bin::[\w:-]*=
    --pre-invoke --post-invoke --status-logger    text
rpm rpmbuild rpmspec rpmdb rpmquery rpmverify rpmkeys:
    -E --eval -D --define    says:rpm
    --pipe    text
pip pip3:
    --python    program
    --editor    text
npm pnpm:
    --script-shell    program
    operand    program    script-shell=
gem:
    -e --editor    text
php:
    -d    text    sendmail_path=
nodemon:
    -x --exec    text
cargo-watch chokidar:
    -c -s --command --shell    text
concurrently:
    operand    text
ansible:
    valued ifTueklm
    -a --args    text
salt:
    operand    text    (?=.*\s)
vagrant gcloud:
    -c --command    text
fly flyctl:
    -C --command    text
aws:
    --command    text
sbatch:
    --wrap    text
tmux screen byobu:
    operand    says:keys    (?=.*\s)
hyperfine:
    valued wrmMLnS --warmup --runs --min-runs --max-runs --export-json --export-markdown --command-name --shell
    -p -c -s --prepare --cleanup --setup --conclude    text
    operand    text
entr:
    -s    rest-text
pee mispipe:
    operand    text
nix-shell:
    --run --command    text
    -E --expr    says:nix
    alone    text
gdb:
    apart
    -ex -iex -eval-command --eval-command -init-eval-command --init-eval-command    says:gdb
    -x --command    file:gdb
    --args -args    rest
    first    program
    valued bcdpsx --pid --core --symbols --se --cd --directory --tty --exec
    stdin    says:gdb
lldb:
    apart
    -o -O --one-line --one-line-before-file    says:gdb
    first    program
    valued Sspnc --pid --name --core --arch --source --file
    stdin    says:gdb
r2 radare2 rizin:
    -c -qc -qcq    says:bang
strace ltrace:
    valued aeEIPpsuSX
    -o --output    text    [|!]
bpftrace stap dtrace:
    -c    text
ipython ipython3 sage:
    -c    code:python
    -c    says:bang
irb pry:
    first    script:ruby
    -e    code:ruby
    alone    code:ruby
ts-node tsx esno:
    first    script:node
    -e -p --eval --print    code:node
    alone    code:node
deno:
    operand    script:node    (.*\.[cm]?[jt]sx?$|/dev/.*|/proc/.*|-$)
    operand    code:node    (?=.*[(`;])
    alone    code:node
crontab:
    valued u
    first    file:crontab
    stdin    says:crontab
at batch:
    -f    script:shell
    stdin    text
gpg gpg2:
    --photo-viewer    text
    --agent-program --dirmngr-program --pinentry-program    program
    -o --output    writes
debugfs:
    -R    says:bang
"""


CARRIERS: Final = Table(_ARCHIVES, _TEXTS, _NETWORK, DATABASES, _WORK, LANGUAGES, OTHERS)
"""By the name of the program."""
