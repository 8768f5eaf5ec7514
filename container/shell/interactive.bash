# What an interactive bash of a session does before each typed line: it asks the agent. /etc/bash.bashrc sources this file,
# before its own first line can turn back.
#
# A line that is refused is not run: the reason is on stderr, and $? is 130 as after Ctrl-C (a trap can end a line in no
# other way). Asked are the whole line, as the history has it, and each simple command of it once aliases are expanded.
# A tripwire like all that reads text: who types `trap - DEBUG` is past it, and meets the exec supervisor, the path guard
# and the proxy.
case $- in *i*) ;; *) return 0 ;; esac
# A session's own shell, not an operator's and not a build's.
[[ -S /run/parhelia/hook.sock && $EUID -ne 0 ]] || return 0

__parhelia_line=
__parhelia_asks() {
    /usr/local/lib/parhelia/parhelia-hook shell -- bash -c "$1" && return 0
    kill -INT "$$"
    return 1
}
__parhelia_before() {
    # Functions and sourced files were read when they were named; only what is typed is asked about.
    [[ ${#FUNCNAME[@]} -eq 1 ]] || return 0
    local number='\#' typed=
    number=${number@P}
    if [[ $number != "$__parhelia_line" ]]; then
        __parhelia_line=$number
        HISTCONTROL= HISTIGNORE=
        typed=$(HISTTIMEFORMAT='' builtin history 1)
        [[ $typed =~ ^\ *[0-9]+\*?\ +(.*)$ ]] && typed=${BASH_REMATCH[1]}
        [[ -z $typed ]] || __parhelia_asks "$typed" || return 1
    fi
    [[ $BASH_COMMAND == "$typed" ]] || __parhelia_asks "$BASH_COMMAND"
}
shopt -s extdebug
trap __parhelia_before DEBUG
