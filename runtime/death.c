#include "death.h"

#include "fail.h"
#include "files.h"
#include "rlimits.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

uint64_t death_memory_kills(void)
{
    FILE *lines = fopen("/proc/vmstat", "re");
    char name[64];
    uint64_t value, kills = 0;

    while (lines != NULL && fscanf(lines, "%63s %" SCNu64, name, &value) == 2)
        if (strcmp(name, "oom_kill") == 0)
            kills = value;
    if (lines != NULL)
        fclose(lines);
    return kills;
}

/* The kernel kills at the hard limit with SIGKILL. */
static int has_used_its_time(const struct rusage *usage)
{
    uint64_t used = (uint64_t)usage->ru_utime.tv_sec + (uint64_t)usage->ru_stime.tv_sec;

    return rlimits_processor_seconds() != UINT64_MAX && used + 1 >= rlimits_processor_seconds();
}

static void reason_of_signal(char reason[DEATH_REASON], int number, const struct rusage *usage,
                             uint64_t memory_kills)
{
    if (number == SIGKILL && has_used_its_time(usage))
        snprintf(reason, DEATH_REASON,
                 "it has used the %" PRIu64 " s of processor time that it may use (ulimit -t)",
                 rlimits_processor_seconds());
    else if (number == SIGKILL && death_memory_kills() > memory_kills)
        snprintf(reason, DEATH_REASON,
                 "killed by signal 9 (SIGKILL), and the kernel has killed processes for want of "
                 "memory on this node since the server started");
    else
        snprintf(reason, DEATH_REASON, "killed by signal %d (%s)", number, strsignal(number));
}

void death_reason(char reason[DEATH_REASON], int status, const struct rusage *usage,
                  const char *said, uint64_t memory_kills)
{
    if (WIFSIGNALED(status))
        reason_of_signal(reason, WTERMSIG(status), usage, memory_kills);
    else if (said[0] != '\0')
        snprintf(reason, DEATH_REASON, "it said '%s'", said);
    else
        snprintf(reason, DEATH_REASON, "it ended with status %d", WEXITSTATUS(status));
}

static int is_in(const char *process, uint64_t mount)
{
    char path[300];
    struct stat status;

    snprintf(path, sizeof path, "/proc/%s/ns/mnt", process);
    return stat(path, &status) == 0 && status.st_ino == mount;
}

/* The process's own open file: opened anew, a regular file would be written from its start.
   Kernels before 5.6 cannot; there it is opened to be appended to. */
static int open_errors_of(const char *process)
{
    int pidfd = (int)syscall(SYS_pidfd_open, atoi(process), 0), fd = -1;
    char path[300];

    if (pidfd >= 0) {
        fd = (int)syscall(SYS_pidfd_getfd, pidfd, STDERR_FILENO, 0);
        close(pidfd);
    }
    if (fd >= 0)
        return fd;
    snprintf(path, sizeof path, "/proc/%s/fd/%d", process, STDERR_FILENO);
    return open(path, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

struct told {
    struct stat *list;
    size_t count, room;
};

static int is_told(struct told *told, const struct stat *status)
{
    for (size_t at = 0; at < told->count; at++)
        if (told->list[at].st_dev == status->st_dev && told->list[at].st_ino == status->st_ino)
            return 1;
    told->list = must_grow(told->list, told->count, &told->room, sizeof *told->list);
    told->list[told->count++] = *status;
    return 0;
}

/* A pipe that is full, or a terminal that is held, must not hold this process. */
static void tell_one(const char *process, struct told *told, const char *line, size_t length)
{
    int fd = open_errors_of(process);
    struct pollfd ready = {fd, POLLOUT, 0};
    struct stat status;
    ssize_t ignored;

    if (fd < 0)
        return;
    if (fstat(fd, &status) == 0 && !is_told(told, &status) && poll(&ready, 1, 0) > 0 &&
        (ready.revents & POLLOUT)) {
        ignored = write(fd, line, length);
        (void)ignored;
    }
    close(fd);
}

void death_tell(uint64_t mount, const char *line, size_t length)
{
    DIR *processes = opendir("/proc");
    struct told told = {NULL, 0, 0};
    struct dirent *entry;

    if (processes == NULL)
        return;
    while ((entry = readdir(processes)) != NULL)
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && is_in(entry->d_name, mount))
            tell_one(entry->d_name, &told, line, length);
    closedir(processes);
    free(told.list);
}
