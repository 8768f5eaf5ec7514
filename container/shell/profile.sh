# A login shell's PATH is made anew by /etc/profile: the agent's shells go first again, in a session.
if [ -S /run/parhelia/hook.sock ] && [ "$(id -u)" != 0 ]; then
    case ":$PATH:" in
        *:/usr/local/lib/parhelia/shim:*) ;;
        *) PATH=/usr/local/lib/parhelia/shim:$PATH ;;
    esac
fi
