#include "prologue.h"

#include "fail.h"
#include "files.h"
#include "prepared.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

/* Slurm kills a prologue after PrologEpilogTimeout, and takes its node out of service. */
enum { MOST_MS = 30000, LOCK_SECONDS = 8, DIGITS_MOST = 10 };

static struct timespec begun;

/* Files of ours must not become the standard streams, to which messages are written. */
static void fill_standard_streams(void)
{
    int fd;

    do
        MUST(fd = open("/dev/null", O_RDWR | O_CLOEXEC), "cannot open '/dev/null'");
    while (fd <= STDERR_FILENO);
    close(fd);
}

/* What the daemon has open is not for us, nor for a child that is left behind in a system call. */
static void close_inherited(void)
{
    DIR *open_files = opendir("/proc/self/fd");
    struct dirent *entry;

    while (open_files != NULL && (entry = readdir(open_files)) != NULL) {
        int fd = atoi(entry->d_name);

        if (fd > STDERR_FILENO && fd != dirfd(open_files))
            close(fd);
    }
    if (open_files != NULL)
        closedir(open_files);
}

/* A daemon that ignores SIGCHLD would have our children reaped by the kernel, and one whose reader
   is gone would have us killed by our first message. */
static void reset_signals(void)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGCHLD, SIG_DFL);
    signal(SIGALRM, SIG_DFL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

/* Root may raise hard limits, too; where it may not (a container), the soft ones go up to them. */
static void raise_limits(void)
{
    const int limits[] = {RLIMIT_FSIZE, RLIMIT_CPU, RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK};
    const struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};

    for (size_t at = 0; at < sizeof limits / sizeof limits[0]; at++) {
        struct rlimit limit;

        if (setrlimit(limits[at], &none) == 0 || getrlimit(limits[at], &limit) < 0)
            continue;
        limit.rlim_cur = limit.rlim_max;
        setrlimit(limits[at], &limit);
    }
}

void prologue_begin(const char *program)
{
    fail_program = program;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    fill_standard_streams();
    close_inherited();
    reset_signals();
    raise_limits();
    umask(022);
}

unsigned prologue_id(const char *text, int option, const char *usage)
{
    size_t digits = strspn(text, "0123456789");
    uint64_t id = digits > 0 && digits <= DIGITS_MOST ? strtoull(text, NULL, 10) : UINT32_MAX;

    if (text[digits] != '\0' || id >= UINT32_MAX || (text[0] == '0' && digits > 1))
        fail(0, usage, "not a number of a user or group: '-%c %s'", option, text);
    return (unsigned)id;
}

const char *prologue_job(const char *text, const char *usage)
{
    if (!prepared_is_job(text))
        fail(0, usage, "not a job: '-J %s'", text);
    return text;
}

int prologue_time_left(void)
{
    struct timespec now;
    long long gone;

    clock_gettime(CLOCK_MONOTONIC, &now);
    gone = (now.tv_sec - begun.tv_sec) * 1000LL + (now.tv_nsec - begun.tv_nsec) / 1000000;
    return gone < MOST_MS ? (int)(MOST_MS - gone) : 0;
}

/* Open the directory `name` of root's in `parent`, which is made if it is not there; -1 if an
   epilogue has removed one of them meanwhile.  What is there and is not such a directory was not made by a
   program of ours. */
static int make_directory(int parent, const char *name, mode_t mode)
{
    struct stat status;
    int fd;

    if (mkdirat(parent, name, mode) < 0 && errno != EEXIST && errno != ENOENT)
        fail(errno, NULL, "cannot make '%s' for " PREPARED_DIR, name);
    fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return -1;
    MUST(fd, "cannot open '%s' for " PREPARED_DIR, name);
    MUST(fstat(fd, &status), "cannot open '%s' for " PREPARED_DIR, name);
    if (status.st_uid != 0 || (status.st_mode & 022) != 0)
        fail(0, "root: remove it", "'%s' for " PREPARED_DIR " is not root's alone", name);
    return fd;
}

static int close_parent(int parent, int child)
{
    int error = errno;

    close(parent);
    errno = error;
    return child;
}

/* Open the directory of what is mounted for this user. */
static int make_users_directory(uid_t uid)
{
    char name[16];

    snprintf(name, sizeof name, "%u", uid);
    for (;;) {
        int run = open("/run", O_RDONLY | O_DIRECTORY | O_CLOEXEC), top, jobs, user;

        MUST(run, "cannot open '/run'");
        top = close_parent(run, make_directory(run, "shifter_lite", 0755));
        jobs = top < 0 ? -1 : close_parent(top, make_directory(top, "jobs", 0755));
        user = jobs < 0 ? -1 : close_parent(jobs, make_directory(jobs, name, 0755));
        if (user >= 0)
            return user;
    }
}

static void interrupt(int signal_number)
{
    (void)signal_number;
}

/* Wait for the lock, but not for ever: an alarm interrupts the wait. */
static int wait_for_lock(int file)
{
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct sigaction action = {.sa_handler = interrupt};
    int locked;

    sigaction(SIGALRM, &action, NULL);
    alarm(LOCK_SECONDS);
    locked = fcntl(file, F_SETLKW, &all) == 0;
    alarm(0);
    signal(SIGALRM, SIG_DFL);
    return locked;
}

#define LOCK ".lock"

/* The file is root's alone to open, so no user can hold its lock. */
int prologue_lock(uid_t uid)
{
    for (;;) {
        int directory = make_users_directory(uid), file;
        struct stat status;

        file = openat(directory, LOCK, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
        close_parent(directory, 0);
        if (file < 0 && errno == ENOENT)
            continue;
        MUST(file, "cannot lock '" PREPARED_DIR "/%u'", uid);
        if (!wait_for_lock(file))
            return 0;
        MUST(fstat(file, &status), "cannot lock '" PREPARED_DIR "/%u'", uid);
        if (status.st_nlink > 0)
            return 1;
        /* An epilogue has removed it meanwhile. */
        close(file);
    }
}

void prologue_remove_lock(uid_t uid)
{
    char path[PATH_MAX], lock[PATH_MAX + sizeof "/" LOCK];
    struct stat status;

    path_format(path, PREPARED_DIR "/%u", uid);
    snprintf(lock, sizeof lock, "%s/" LOCK, path);
    /* Its own directory and `.`: no job's. */
    if (stat(path, &status) == 0 && status.st_nlink <= 2) {
        unlink(lock);
        rmdir(path);
    }
}

/* POSIX ACLs as linux/posix_acl_xattr.h has them. */
struct acl_entry {
    uint16_t tag, permissions;
    uint32_t id;
};

struct acl {
    uint32_t version;
    struct acl_entry entries[5];
};

int prologue_make_place(uid_t uid, const char *job)
{
    const struct acl acl = {2,
                            {{0x01, 7, UINT32_MAX},
                             {0x02, 5, uid},
                             {0x04, 0, UINT32_MAX},
                             {0x10, 5, UINT32_MAX},
                             {0x20, 0, UINT32_MAX}}};
    int user = make_users_directory(uid);
    int place = close_parent(user, make_directory(user, job, 0700));

    MUST(place, "cannot make '" PREPARED_DIR "/%u/%s'", uid, job);
    /* A group would be the other way, and would let in all its members. */
    if (fsetxattr(place, "system.posix_acl_access", &acl, sizeof acl, 0) < 0)
        fail(errno, "the filesystem of /run must have ACLs (CONFIG_TMPFS_POSIX_ACL)",
             "cannot let the user %u into '" PREPARED_DIR "/%u/%s'", uid, uid, job);
    return place;
}
