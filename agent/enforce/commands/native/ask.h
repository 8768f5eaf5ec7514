/* One question to the agent's daemon: who may answer, and how both are framed.
 *
 * Rules kept here: the framing is the one that agent/enforce/commands/hook_wire.py defines; the daemon must be root, the
 * owner of this program's file, or this process's own user where only root (or an ancestor of this process, in an agent
 * without root) can have made the socket: see `trusted`; any doubt ends in `fault`, which is a refusal; nothing waits
 * longer than TIMEOUT; memory is static.
 */

#ifndef PARHELIA_ASK_H
#define PARHELIA_ASK_H

#include "kernel.h"

#ifndef SOCKET
#define SOCKET "/run/parhelia/hook.sock"
#endif
enum {
    TIMEOUT = 20,              /* seconds for everything */
    LINE_TIMEOUT = 1000,       /* milliseconds that a line for the screen may wait */
    MAX_INPUT = 64 << 20,      /* bytes of one call */
    MAX_ANSWER = 64 << 10,     /* bytes of the answer's texts */
    HEADER = 12,
    PATH_SIZE = 4096,
    BLOCK = 64 << 10,
    PIPE_BUF = 4096,           /* pipe(7): what a writable pipe takes without blocking */
    MAX_ANCESTORS = 256,
    DENIED_HOOK = 2,
    DENIED_SHELL = 126
};

static int denied_status = DENIED_HOOK;
static long deadline;
static char own_path[PATH_SIZE];  /* of this program's file; empty where it is not known */
static u8 block[BLOCK];
static u8 answer[HEADER + MAX_ANSWER + 1];

struct texts { const u8 *output, *message; u32 output_size, message_size; int permit; };

static long milliseconds(void)
{
    struct timespec now = {0, 0};
    CALL(SYS_clock_gettime, CLOCK_MONOTONIC, &now, 0, 0);
    return now.seconds * 1000 + now.nanoseconds / 1000000;
}

/* Waits until `fd` is ready, at most until `until`; false: it is too late, or there is nothing to wait for. */
static int ready(int fd, short events, long until)
{
    for (;;) {
        long left = until - milliseconds();
        if (left <= 0)
            return 0;
        struct timespec wait = {left / 1000, left % 1000 * 1000000};
        struct pollfd one = {fd, events, 0};
        long found = call6(SYS_ppoll, (long)&one, 1, (long)&wait, 0, 8, 0);
        if (found > 0)
            return 1;
        if (found != -EINTR && found != 0)
            return 0;
    }
}

/* Writes all of it, in pieces that a ready descriptor takes at once; false where it can't. */
static int write_all(int fd, const u8 *data, size_t size, long until)
{
    while (size) {
        if (!ready(fd, POLLOUT, until))
            return 0;
        long done = CALL(SYS_write, fd, data, size < PIPE_BUF ? size : PIPE_BUF, 0);
        if (done == -EINTR || done == -EAGAIN)
            continue;
        if (done <= 0)
            return 0;
        data += done;
        size -= (size_t)done;
    }
    return 1;
}

static size_t append(char *line, size_t at, size_t size, const char *text)
{
    while (*text && at < size)
        line[at++] = *text++;
    return at;
}

/* The one end of everything that goes wrong: a line on stderr where that can be had, and the status of a refusal. */
__attribute__((noreturn)) static void fault(const char *why)
{
    static char line[512];
    size_t size = append(line, 0, sizeof line - 1, "parhelia: denied by agent-fault: ");
    size = append(line, size, sizeof line - 1, why);
    line[size++] = '\n';
    write_all(2, (const u8 *)line, size, milliseconds() + LINE_TIMEOUT);
    leave(denied_status);
}

static void find_own_path(void)
{
    long size = CALL(SYS_readlinkat, AT_FDCWD, "/proc/self/exe", own_path, PATH_SIZE - 1);
    own_path[size > 0 ? size : 0] = 0;
}

static int info_of(const char *path, int flags, struct statx *info)
{
    return call6(SYS_statx, AT_FDCWD, (long)path, flags, STATX_BASIC_STATS, (long)info, 0) == 0;
}

/* Is this directory root's, and can nobody else make a name in it? */
static int only_roots(const char *directory)
{
    struct statx info;
    return info_of(directory, 0, &info) && info.uid == 0 && !(info.mode & 022);
}

/* gVisor's SO_PEERCRED answers the caller's own uid. A socket file of root's, in a directory where nobody else can make
 * one, says the same; so does every link on the way to it. */
static int bound_by_root(const char *given)
{
    static char path[PATH_SIZE], parent[PATH_SIZE];
    if (given[0] != '/' || length(given) >= PATH_SIZE)
        return 0;
    memcpy(path, given, length(given) + 1);
    for (int hops = 0; hops < 4; hops++) {
        struct statx info;
        size_t cut = (size_t)(base_name(path) - path);
        memcpy(parent, path, cut);
        parent[cut] = 0;
        if (!only_roots(parent) || !info_of(path, AT_SYMLINK_NOFOLLOW, &info) || info.uid != 0)
            return 0;
        if ((info.mode & S_IFMT) == S_IFSOCK)
            return 1;
        if ((info.mode & S_IFMT) != S_IFLNK)
            return 0;
        long size = CALL(SYS_readlinkat, AT_FDCWD, path, block, PATH_SIZE - 1);
        if (size <= 0 || block[0] != '/')
            return 0;
        memcpy(path, block, (size_t)size);
        path[size] = 0;
    }
    return 0;
}

/* The parent of `pid` by proc_pid_stat(5), 0 where it is not known. */
static int parent_of(int pid)
{
    char path[32] = "/proc/", digits[12];
    size_t count = 0, at = 6;
    for (int rest = pid; rest > 0 && count < sizeof digits; rest /= 10)
        digits[count++] = (char)('0' + rest % 10);
    while (count)
        path[at++] = digits[--count];
    memcpy(path + at, "/stat", 6);
    long fd = CALL(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return 0;
    long size = CALL(SYS_read, fd, block, 1024, 0);
    CALL(SYS_close, fd, 0, 0, 0);
    long place = size - 1;
    while (place >= 0 && block[place] != ')')  /* the name in parentheses can hold anything */
        place--;
    int parent = 0;
    for (place += 4; place > 3 && place < size && block[place] >= '0' && block[place] <= '9'; place++)
        parent = parent * 10 + (block[place] - '0');
    return parent;
}

/* An agent without root has the session's uid, and is an ancestor of all that runs in it. */
static int is_ancestor(int pid)
{
    int at = (int)CALL(SYS_getppid, 0, 0, 0, 0);
    for (int depth = 0; depth < MAX_ANCESTORS && at > 0; depth++, at = parent_of(at))
        if (at == pid)
            return 1;
    return 0;
}

static int trusted(int fd, const char *path)
{
    struct ucred peer = {0, ~0u, ~0u};
    u32 size = sizeof peer;
    struct statx own;
    if (call6(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, (long)&peer, (long)&size, 0) != 0 || size != sizeof peer)
        return 0;
    if (peer.uid == 0 || (info_of("/proc/self/exe", 0, &own) && own.uid == peer.uid))
        return 1;
    return peer.uid == (u32)CALL(SYS_getuid, 0, 0, 0, 0) && (bound_by_root(path) || is_ancestor(peer.pid));
}

/* The socket beside this program (the directory that a run makes for its session), else the compiled-in one. */
static const char *find_socket(void)
{
    static const char name[] = "hook.sock";
    static char beside[PATH_SIZE + sizeof name];
    size_t cut = (size_t)(base_name(own_path) - own_path);
    memcpy(beside, own_path, cut);
    memcpy(beside + cut, name, sizeof name);
    return cut && CALL(SYS_faccessat, AT_FDCWD, beside, 0, 0) == 0 ? beside : SOCKET;
}

static int reach(const char *path)
{
    struct sockaddr_un address = {AF_UNIX, {0}};
    struct timeval patience = {TIMEOUT, 0};
    size_t size = length(path);
    if (size >= SUN_PATH)
        fault("the socket's path is too long");
    memcpy(address.path, path, size);
    long first = CALL(SYS_socket, AF_UNIX, SOCK_STREAM | O_CLOEXEC, 0, 0);
    if (first < 0)
        fault("no socket is to be had");
    long fd = CALL(SYS_fcntl, first, F_DUPFD_CLOEXEC, 3, 0);  /* where 0, 1 or 2 is closed it must not take their place */
    CALL(SYS_close, first, 0, 0, 0);
    if (fd < 0)
        fault("no socket is to be had");
    call6(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, (long)&patience, sizeof patience, 0);
    if (CALL(SYS_connect, fd, &address, sizeof address, 0) != 0)
        fault("the agent cannot be reached; is it running?");
    if (!trusted((int)fd, path))
        fault("the socket is not the agent's");
    return (int)fd;
}

/* False where the daemon takes no more: it may have answered already. */
static int put(int fd, const void *data, size_t size)
{
    const u8 *at = data;
    while (size) {
        if (!ready(fd, POLLOUT, deadline))
            fault("the agent took too long");
        long done = call6(SYS_sendto, fd, (long)at, (long)size, MSG_NOSIGNAL, 0, 0);
        if (done == -EINTR || done == -EAGAIN)
            continue;
        if (done <= 0)
            return 0;
        at += done;
        size -= (size_t)done;
    }
    return 1;
}

static u32 number(const u8 *at)
{
    return (u32)at[0] << 24 | (u32)at[1] << 16 | (u32)at[2] << 8 | at[3];
}

/* The answer, whole and well-formed, or a fault. */
static struct texts receive(int fd)
{
    size_t size = 0;
    CALL(SYS_shutdown, fd, SHUT_WR, 0, 0);
    for (;;) {
        if (!ready(fd, POLLIN, deadline))
            fault("the agent took too long");
        long done = call6(SYS_recvfrom, fd, (long)(answer + size), (long)(sizeof answer - size), 0, 0, 0);
        if (done == -EINTR || done == -EAGAIN)
            continue;
        if (done < 0)
            fault("the agent gave no answer");
        if (done == 0)
            break;
        size += (size_t)done;
        if (size == sizeof answer)
            fault("the agent's answer is too long");
    }
    CALL(SYS_close, fd, 0, 0, 0);
    if (size == 0)
        fault("the agent gave no answer");
    u64 expected = size < HEADER ? 0 : (u64)HEADER + number(answer + 4) + number(answer + 8);
    if (size != expected || answer[0] != 'P' || answer[1] != 'H' || answer[2] != 1 || (answer[3] != 0 && answer[3] != 2))
        fault("the agent's answer is malformed");
    u32 output_size = number(answer + 4);
    struct texts found = {answer + HEADER, answer + HEADER + output_size, output_size, number(answer + 8), answer[3] == 0};
    return found;
}

#endif
