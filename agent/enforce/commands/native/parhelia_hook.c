/* What the session's programs ask the agent with: the hook of coding agents, and the shells' shim. See docs/operations.md.
 *
 *   parhelia-hook [claude-code|codex|gemini|cursor] [--socket PATH]   a tool call on stdin; exit status 0 or 2
 *   parhelia-hook shell [--socket PATH] -- ARGV...                    may this run here? exit status 0 or 2
 *   sh, bash, dash ...                                                the shell of that name, once the agent agrees; else 126
 *
 * Rules kept here: as a hook it ends in 0 (no objection) or 2 (blocked) and nothing else, whatever signal, limit or fault;
 * the environment is not read; which of the three it is follows from the name of its own file, not from argv[0].
 * No C library: it starts in a fifth of the time, and nothing of it looks at the environment either.
 */

#include "ask.h"

static const char usage[] = "usage: parhelia-hook [claude-code|codex|gemini|cursor] [--socket PATH]";
static const char *const protocols[] = {"claude-code", "codex", "gemini", "cursor"};
/* What the shim hands over to: by compiled-in path, never by PATH. */
static const char *const shells[][2] = {{"sh", "/bin/sh"}, {"bash", "/bin/bash"}, {"dash", "/bin/dash"}};
static u8 handler_stack[8192];

__attribute__((noreturn)) static void stopped(int number)
{
    (void)number;
    fault("the hook was stopped or took too long");
}

static void never_returns(void)
{
    leave(denied_status);
}

/* Every signal that would end the process otherwise ends it as a refusal; those that would stop it are ignored. What an
 * earlier program ignored or blocked does not hold here. */
static void catch_signals(void)
{
    struct stack place = {handler_stack, 0, sizeof handler_stack};
    struct itimerval timer = {{0, 0}, {TIMEOUT, 0}};
    u64 nothing = 0;
    CALL(SYS_sigaltstack, &place, 0, 0, 0);
    for (int number = 1; number <= SIGNALS; number++) {
        struct sigaction action = {stopped, SA_RESTORER | SA_ONSTACK, never_returns, ~0ul};
        if (number == SIGTSTP || number == SIGTTIN || number == SIGTTOU)
            action.handler = (void (*)(int))1; /* SIG_IGN */
        if (number == SIGCHLD || number == SIGCONT || number == SIGURG || number == SIGWINCH)
            action.handler = (void (*)(int))0; /* SIG_DFL: nothing */
        CALL(SYS_rt_sigaction, number, &action, 0, 8);
    }
    CALL(SYS_rt_sigprocmask, SIG_SETMASK, &nothing, 0, 8);
    CALL(SYS_setitimer, ITIMER_REAL, &timer, 0, 0);
}

static int open_question(const char *path, const char *protocol)
{
    static const char head[] = "parhelia-hook 1 ";
    int fd = reach(path ? path : find_socket());
    if (!put(fd, head, sizeof head - 1) || !put(fd, protocol, length(protocol)) || !put(fd, "\n", 1))
        fault("the agent gave no answer");
    return fd;
}

/* The texts, then the status. A permit that can't be told is a refusal. */
__attribute__((noreturn)) static void finish(struct texts given)
{
    write_all(2, given.message, given.message_size, milliseconds() + LINE_TIMEOUT);
    int told = write_all(1, given.output, given.output_size, deadline);
    leave(given.permit && told ? 0 : denied_status);
}

__attribute__((noreturn)) static void hook(const char *protocol, const char *path)
{
    int fd = open_question(path, protocol);
    for (size_t total = 0;;) {
        if (!ready(0, POLLIN, deadline))
            fault("the call did not arrive");
        long size = CALL(SYS_read, 0, block, sizeof block, 0);
        if (size == -EINTR || size == -EAGAIN)
            continue;
        if (size < 0)
            fault("the call cannot be read");
        total += (size_t)size;
        if (total > MAX_INPUT)
            fault("the call is larger than 64 MiB");
        if (size == 0 || !put(fd, block, (size_t)size))
            break;
    }
    finish(receive(fd));
}

/* May `argv` run here? Its first word is `program`. */
static struct texts ask_shell(const char *path, const char *program, char **argv)
{
    static char directory[PATH_SIZE];
    if (CALL(SYS_getcwd, directory, sizeof directory, 0, 0) <= 0 || directory[0] != '/')
        memcpy(directory, "/", 2);  /* gone, or out of reach */
    int fd = open_question(path, "shell");
    int told = put(fd, directory, length(directory) + 1) && put(fd, program, length(program) + 1);
    for (char **word = argv + 1; *argv && *word && told; word++)
        told = put(fd, *word, length(*word) + 1);
    return receive(fd);
}

/* Is the command line's text to be run (-c), as bash(1) and dash(1) read their options? */
static int runs_text(char **argv)
{
    for (char **word = argv + 1; *argv && *word; word++) {
        const char *at = *word;
        if ((at[0] != '-' && at[0] != '+') || same(at, "-") || same(at, "--"))
            return 0;
        if (at[0] == '-' && at[1] == '-') {
            if ((same(at, "--rcfile") || same(at, "--init-file")) && word[1])
                word++;
            continue;
        }
        int arguments = 0;
        for (at++; *at; at++) {
            if (*at == 'c')
                return 1;
            arguments += *at == 'o' || *at == 'O';
        }
        for (; arguments && word[1]; arguments--)
            word++;
    }
    return 0;
}

static int is_terminal(int fd)
{
    u8 settings[64];
    return CALL(SYS_ioctl, fd, TCGETS, settings, 0) == 0;
}

/* A dash that somebody types into has no way to ask before a line; the image's bash has (interactive.bash). */
static int typed_into(char **argv)
{
    return (!argv[0] || !argv[1] || same(argv[1], "-i")) && is_terminal(0) && is_terminal(2);
}

__attribute__((noreturn)) static void shell(const char *real, char **argv, char **envp)
{
    denied_status = DENIED_SHELL;
    if (runs_text(argv)) {
        struct texts given = ask_shell(0, real, argv);
        if (!given.permit) {
            write_all(2, given.message, given.message_size, milliseconds() + LINE_TIMEOUT);
            leave(denied_status);
        }
    } else if (!same(real, "/bin/bash") && typed_into(argv)) {
        static char *bash[] = {"bash", "-i", 0};
        CALL(SYS_execve, "/bin/bash", bash, envp, 0);
    }
    long error = CALL(SYS_execve, real, argv, envp, 0);
    leave(error == -ENOENT ? 127 : denied_status);
}

__attribute__((noreturn)) static void client(char **argv)
{
    const char *protocol = 0, *path = 0;
    catch_signals();
    for (char **word = argv + 1; *argv && *word; word++) {
        if (same(*word, "--socket") && word[1])
            path = *++word;
        else if (same(*word, "--") && protocol && same(protocol, "shell") && word[1])
            finish(ask_shell(path, word[1], word + 1));
        else if (!protocol)
            protocol = *word;
        else
            fault(usage);
    }
    if (!protocol)
        protocol = protocols[0];
    for (size_t index = 0; index < sizeof protocols / sizeof *protocols; index++)
        if (same(protocol, protocols[index]))
            hook(protocol, path);
    fault(usage);
}

__attribute__((noreturn, used)) void begin(long *stack)
{
    char **argv = (char **)(stack + 1), **envp = argv + stack[0] + 1;
    deadline = milliseconds() + TIMEOUT * 1000;
    find_own_path();
    for (size_t index = 0; index < sizeof shells / sizeof *shells; index++)
        if (same(base_name(own_path), shells[index][0]))
            shell(shells[index][1], argv, envp);
    client(argv);
}
