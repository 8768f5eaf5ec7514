/* The Linux kernel's interface as this program uses it, without a C library and without headers of the system.
 *
 * Rules kept here: numbers and layouts come from the kernel's uapi (asm/unistd_64.h, asm-generic/unistd.h, linux/stat.h,
 * asm/signal.h, linux/un.h); a call returns what the kernel returns, a negative error number included; nothing is cached.
 */

#ifndef PARHELIA_KERNEL_H
#define PARHELIA_KERNEL_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef unsigned long size_t;

#if defined(__x86_64__)
enum {
    SYS_read = 0, SYS_write = 1, SYS_close = 3, SYS_rt_sigaction = 13, SYS_rt_sigprocmask = 14, SYS_ioctl = 16,
    SYS_setitimer = 38, SYS_socket = 41, SYS_connect = 42, SYS_sendto = 44, SYS_recvfrom = 45, SYS_shutdown = 48,
    SYS_setsockopt = 54, SYS_getsockopt = 55, SYS_execve = 59, SYS_fcntl = 72, SYS_getcwd = 79, SYS_getuid = 102,
    SYS_getppid = 110, SYS_sigaltstack = 131, SYS_clock_gettime = 228, SYS_exit_group = 231, SYS_openat = 257,
    SYS_readlinkat = 267, SYS_faccessat = 269, SYS_ppoll = 271, SYS_statx = 332
};
/* The stack pointer at the start is argc; the ABI wants it aligned before a call. */
__asm__(".globl _start\n_start:\n\txor %ebp,%ebp\n\tmov %rsp,%rdi\n\tand $-16,%rsp\n\tcall begin\n\thlt\n");

static long call6(long number, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
enum {
    SYS_getcwd = 17, SYS_fcntl = 25, SYS_ioctl = 29, SYS_faccessat = 48, SYS_openat = 56, SYS_close = 57, SYS_read = 63,
    SYS_write = 64, SYS_ppoll = 73, SYS_readlinkat = 78, SYS_exit_group = 94, SYS_setitimer = 103,
    SYS_clock_gettime = 113, SYS_sigaltstack = 132, SYS_rt_sigaction = 134, SYS_rt_sigprocmask = 135, SYS_getppid = 173,
    SYS_getuid = 174, SYS_socket = 198, SYS_connect = 203, SYS_sendto = 206, SYS_recvfrom = 207, SYS_setsockopt = 208,
    SYS_getsockopt = 209, SYS_shutdown = 210, SYS_execve = 221, SYS_statx = 291
};
__asm__(".globl _start\n_start:\n\tmov x29,#0\n\tmov x0,sp\n\tand sp,x0,#-16\n\tbl begin\n\tbrk #0\n");

static long call6(long number, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}
#else
#error "this processor is not supported; the Python client does the same"
#endif

#define CALL(number, a, b, c, d) call6(number, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)

enum { EINTR = 4, EAGAIN = 11, ENOENT = 2 };
enum { AT_FDCWD = -100, AT_SYMLINK_NOFOLLOW = 0x100, O_RDONLY = 0, O_CLOEXEC = 02000000, F_DUPFD_CLOEXEC = 1030 };
enum { AF_UNIX = 1, SOCK_STREAM = 1, SOL_SOCKET = 1, SO_PEERCRED = 17, SO_SNDTIMEO = 21, SHUT_WR = 1 };
enum { MSG_NOSIGNAL = 0x4000, POLLIN = 1, POLLOUT = 4, CLOCK_MONOTONIC = 1, ITIMER_REAL = 0, TCGETS = 0x5401 };
enum { SIG_SETMASK = 2, SIGKILL = 9, SIGCHLD = 17, SIGCONT = 18, SIGSTOP = 19, SIGTSTP = 20, SIGTTIN = 21, SIGTTOU = 22 };
enum { SIGURG = 23, SIGWINCH = 28, SIGNALS = 64, SA_RESTORER = 0x04000000, SA_ONSTACK = 0x08000000 };
enum { S_IFMT = 0170000, S_IFLNK = 0120000, S_IFSOCK = 0140000, STATX_BASIC_STATS = 0x7ff };
enum { SUN_PATH = 108 };

struct timespec { long seconds, nanoseconds; };
struct timeval { long seconds, microseconds; };
struct itimerval { struct timeval interval, value; };
struct pollfd { int fd; short events, revents; };
struct ucred { int pid; u32 uid, gid; };
struct sockaddr_un { u16 family; char path[SUN_PATH]; };
struct sigaction { void (*handler)(int); unsigned long flags; void (*restorer)(void); u64 mask; };
struct stack { void *base; int flags; size_t size; };
/* struct statx, linux/stat.h: 256 bytes, the same on every processor. */
struct statx { u32 mask, blksize; u64 attributes; u32 nlink, uid, gid; u16 mode, spare; u64 rest[28]; };
_Static_assert(sizeof(struct statx) == 256, "struct statx");

/* The compiler may call these whatever it is told. */
void *memset(void *to, int byte, size_t count)
{
    for (u8 *at = to; count--; at++)
        *at = (u8)byte;
    return to;
}

void *memcpy(void *to, const void *from, size_t count)
{
    u8 *target = to;
    for (const u8 *source = from; count--;)
        *target++ = *source++;
    return to;
}

static size_t length(const char *text)
{
    size_t count = 0;
    while (text[count])
        count++;
    return count;
}

static int same(const char *one, const char *two)
{
    while (*one && *one == *two)
        one++, two++;
    return *one == *two;
}

/* What follows the last slash. */
static const char *base_name(const char *path)
{
    const char *name = path;
    for (; *path; path++)
        if (*path == '/')
            name = path + 1;
    return name;
}

__attribute__((noreturn)) static void leave(int status)
{
    for (;;)
        CALL(SYS_exit_group, status, 0, 0, 0);
}

#endif
