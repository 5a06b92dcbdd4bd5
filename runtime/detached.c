#include "detached.h"

#include "fail.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

enum { FIRST = STDERR_FILENO + 1, WANTED_MOST = 8, OUT_OF_THE_WAY = FIRST + WANTED_MOST + 4 };

/* Without a tracer for the child, too: one that traces the application and its image's server at
   once (strace -f) waits for ever as soon as it reads memory of the one that only the other, which
   it has stopped, can fill.  Tests that kill the child before each of its system calls define
   UNTRACED as 0. */
#ifndef UNTRACED
#define UNTRACED CLONE_UNTRACED
#endif

pid_t fork_silently(void)
{
    return (pid_t)syscall(SYS_clone, UNTRACED, 0, 0, 0, 0);
}

void fail_to_fork(int error, const char *fact)
{
    fail(error,
         error == EAGAIN ? "may you have more processes on this node? see: ulimit -u" : NULL, "%s",
         fact);
}

void wait_for_child(pid_t child, const char *fact)
{
    int status = 0;
    pid_t ended;

    do
        ended = waitpid(child, &status, __WALL);
    while (ended < 0 && errno == EINTR);
    MUST(ended, "%s", fact);
    if (status != 0)
        fail_to_fork(WIFEXITED(status) ? WEXITSTATUS(status) : 0, fact);
}

static int is_from(int fd, int first)
{
    return fd >= first;
}

/* The caller's cannot have the flag, for then we would not have got them. */
static int is_ours(int fd, int first)
{
    int flags = fcntl(fd, F_GETFD);

    return fd >= first && flags >= 0 && flags & FD_CLOEXEC;
}

static void close_those(int (*goes)(int fd, int first), int first)
{
    DIR *open_files = opendir("/proc/self/fd");
    struct dirent *entry;

    if (open_files == NULL)
        fail(errno, NULL, "cannot close descriptors");
    while ((entry = readdir(open_files)) != NULL) {
        int fd = atoi(entry->d_name);

        if (fd != dirfd(open_files) && goes(fd, first))
            close(fd);
    }
    closedir(open_files);
}

static void close_from(int first)
{
    /* Kernels before 5.9 have no such call. */
    if (syscall(SYS_close_range, first, ~0u, 0) < 0)
        close_those(is_from, first);
}

void close_ours(void)
{
    close_those(is_ours, FIRST);
}

static int move_up(int fd)
{
    int moved = fd < 0 ? fd : fcntl(fd, F_DUPFD_CLOEXEC, OUT_OF_THE_WAY);

    if (fd >= 0)
        MUST(moved, "cannot move a file descriptor");
    return moved;
}

static void put(int fd, int place)
{
    if (fd < 0)
        close(place);
    else
        MUST(dup2(fd, place), "cannot move a file descriptor");
}

/* Where they are now may be any number, one of the places too: all move out of the way first. */
static void arrange(const int *wanted, size_t count, int errors)
{
    int moved[WANTED_MOST], null = open("/dev/null", O_RDWR | O_CLOEXEC);

    MUST(null, "cannot open '/dev/null'");
    null = move_up(null);
    errors = move_up(errors);
    for (size_t at = 0; at < count; at++)
        moved[at] = move_up(wanted[at]);
    put(null, STDIN_FILENO);
    put(null, STDOUT_FILENO);
    put(errors < 0 ? null : errors, STDERR_FILENO);
    for (size_t at = 0; at < count; at++)
        put(moved[at], FIRST + (int)at);
    close_from(FIRST + (int)count);
}

void detach(const int *wanted, size_t count, int errors)
{
    arrange(wanted, count, errors);
    MUST(setsid(), "cannot leave the caller's session");
    MUST(chdir("/"), "cannot leave the caller's directory");
    umask(022);
}

void send_byte(int pipe, char byte)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN}, callers;
    ssize_t ignored;

    MUST(sigaction(SIGPIPE, &ignore, &callers), "cannot ignore SIGPIPE");
    ignored = write(pipe, &byte, 1);
    (void)ignored;
    MUST(sigaction(SIGPIPE, &callers, NULL), "cannot restore SIGPIPE");
}
