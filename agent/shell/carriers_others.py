"""Programs that few people have, and one option of each that runs something: more rows of `agent.shell.carriers_table`.

Rules: as there; the language of the rows is in `agent.shell.carriers`.
"""

OTHERS = r"""
m4 gm4:
    alone    says:m4
    first    file:m4
    -D    says:m4
restic borg:
    --password-command --rsh    text
sysctl:
    operand    text    kernel\.core_pattern\s*=\s*\|
zic:
    -y    program
agetty getty:
    -l --login-program    program
busctl systemctl loginctl:
    --address    says:bus
certbot:
    --pre-hook --post-hook --deploy-hook --renew-hook --manual-auth-hook --manual-cleanup-hook    text
check_by_ssh:
    -o    text    (?:Proxy|Local)Command(?:=|\s)\s*
check_ssl_cert:
    --grep-bin --openssl --curl-bin    program
csvtool:
    operand    text    (?=.*[\s;|&/])
dmsetup:
    --exec    text
enscript:
    -I --filter    text
genie tmate:
    -c --command    text
hg:
    --config    text    (?:alias|hooks|pager|ui|merge-tools|extdiff)\.[\w.-]*=!?
latexmk:
    -pdflatex -latex -lualatex -xelatex -e    text
perlbug:
    -e    text
plymouth:
    --command    text
pidstat ksu:
    -e    rest
puppet:
    -e --execute    code:other
scrot:
    -e --exec    text
service:
    first    program    (?=.*/)
sshuttle:
    -e --ssh-cmd    text
yt-dlp youtube-dl:
    --exec --exec-before-download    text
    --downloader --external-downloader    program    (?=.*/)
xdg-user-dir:
    operand    text    (?=.*[;|&`$}])
socket:
    -p    text
cpan cpanm:
    -e    code:perl
conky mpv:
    -X    text
ctags uctags:
    --_interactive    loads
nasm yasm ld as:
    -preproc    program
"""
