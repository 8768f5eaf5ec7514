# What an interactive bash of a session does before each typed line: it asks the agent. /etc/bash.bashrc sources this file,
# before its own first line can turn back.
#
# Enter asks about the line as it is typed: refused, the reason is on stderr, `parhelia_refused` runs in its place, and $? is
# 126. A DEBUG trap asks about what comes another way (a command over several lines, aliases, a shell without readline):
# refused, the whole line is given up as by Ctrl-C, and $? is 130, for a trap can set no other.
#
# A tripwire like all that reads text: who types `trap - DEBUG` is past it, and meets the exec supervisor, the path guard
# and the proxy.
case $- in *i*) ;; *) return 0 ;; esac
# A session's own shell, not an operator's and not a build's.
[[ -S /run/parhelia/hook.sock && $EUID -ne 0 ]] || return 0

__parhelia_line=
__parhelia_asked=
__parhelia_replaced=
parhelia_refused() { return 126; }

__parhelia_asks() {
    /usr/local/lib/parhelia/parhelia-hook shell -- bash -c "$1"
}

__parhelia_typed() {
    __parhelia_asked=
    [[ -n ${READLINE_LINE//[[:space:]]/} ]] || return 0
    # A part of a command is asked about with its rest, by the trap.
    /bin/bash -n <<< "$READLINE_LINE" 2> /dev/null || return 0
    if __parhelia_asks "$READLINE_LINE"; then
        __parhelia_asked=$READLINE_LINE
    else
        __parhelia_replaced="parhelia_refused ${READLINE_LINE@Q}"
        READLINE_LINE=$__parhelia_replaced
        READLINE_POINT=${#READLINE_LINE}
    fi
}

__parhelia_before() {
    # Functions and sourced files were read when they were named; only what is typed is asked about.
    [[ ${#FUNCNAME[@]} -eq 1 ]] || return 0
    [[ $BASH_COMMAND != __parhelia_typed && $BASH_COMMAND != "$__parhelia_replaced" ]] || return 0
    local number='\#' typed=$__parhelia_asked
    number=${number@P}
    if [[ $number != "$__parhelia_line" && -z $typed ]]; then
        HISTCONTROL= HISTIGNORE=
        typed=$(HISTTIMEFORMAT='' builtin history 1)
        [[ $typed =~ ^\ *[0-9]+\*?\ +(.*)$ ]] && typed=${BASH_REMATCH[1]}
        __parhelia_line=$number
        [[ -z $typed ]] || __parhelia_asks "$typed" || { kill -INT "$$"; return 1; }
    fi
    [[ $BASH_COMMAND == "$typed" ]] || __parhelia_asks "$BASH_COMMAND" || { kill -INT "$$"; return 1; }
}

if [[ -o emacs || -o vi ]]; then
    for __parhelia_map in emacs vi-insert; do
        bind -m "$__parhelia_map" -x '"\e[20099~": __parhelia_typed'
        bind -m "$__parhelia_map" '"\e[20098~": accept-line'
        bind -m "$__parhelia_map" '"\C-m": "\e[20099~\e[20098~"'
        bind -m "$__parhelia_map" '"\C-j": "\e[20099~\e[20098~"'
    done
    unset __parhelia_map
fi
shopt -s extdebug
trap __parhelia_before DEBUG
