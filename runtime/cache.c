#include "cache.h"

#include "fail.h"
#include "files.h"
#include "loop.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SAID_MOST = 256, NAMES_TRIED = 16 };

/* End the prologue if others than root can change what `fd` is open on.  In a directory with the
   sticky bit others can make files, but exchange none of ours. */
static void check_owner(int fd, const char *key, const char *path)
{
    struct stat status;

    MUST(fstat(fd, &status), "cannot open '%s' (%s)", path, key);
    if (S_ISDIR(status.st_mode) && (status.st_mode & S_ISVTX) != 0)
        status.st_mode &= ~(mode_t)022;
    if (status.st_uid != 0 || (status.st_mode & 022) != 0)
        fail(0, "root: chown root, chmod go-w", "'%s' (%s) can be written by others than root",
             path, key);
}

static int open_directory(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        fail(errno, NULL, "cannot open '%s' (perNodeCachePath)", path);
    check_owner(fd, "perNodeCachePath", path);
    return fd;
}

/* One that is not installed is missed by those alone who ask for an xfs. */
static int open_program(const char *path)
{
    int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (path != NULL && path[0] != '/')
        fail(0, NULL, "not an absolute path: '%s' (mkfsXfsPath)", path);
    if (fd >= 0)
        check_owner(fd, "mkfsXfsPath", path);
    return fd;
}

void cache_site_open(struct cache_site *site, const struct cache_rules *rules)
{
    site->rules = rules;
    site->directory = open_directory(rules->path);
    site->mkfs_xfs = open_program(rules->mkfs_xfs);
}

/* A file with a name for an instant, on filesystems that make none without. */
static int make_named(const struct cache_site *site)
{
    char name[64];
    uint64_t number;

    for (int tried = 0; tried < NAMES_TRIED; tried++) {
        int file;

        if (getrandom(&number, sizeof number, 0) != sizeof number)
            return -1;
        snprintf(name, sizeof name, ".perNodeCache.%016" PRIx64, number);
        file = openat(site->directory, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                      0600);
        if (file >= 0)
            unlinkat(site->directory, name, 0);
        if (file >= 0 || errno != EEXIST)
            return file;
    }
    return -1;
}

/* Reserve the whole of the file, so that what was promised to one job is not promised to another
   too, and no filesystem in it is ever without room.  Where that cannot be, look whether there is
   room now. */
static void reserve(const struct cache_site *site, int file, uint64_t size)
{
    struct statvfs room;

    MUST(ftruncate(file, (off_t)size), "cannot make a file of %" PRIu64 " bytes in '%s'", size,
         site->rules->path);
    MUST(fstatvfs(site->directory, &room), "cannot look at '%s'", site->rules->path);
    /* What the filesystem keeps back for root's own use is not given away. */
    if (size / room.f_frsize >= room.f_bavail)
        fail(ENOSPC, NULL, "cannot make a cache of %" PRIu64 " bytes in '%s'", size, site->rules->path);
    if (fallocate(file, 0, 0, (off_t)size) < 0 && errno != EOPNOTSUPP && errno != ENOSYS)
        fail(errno, NULL, "cannot make a cache of %" PRIu64 " bytes in '%s'", size, site->rules->path);
}

static int make_file(const struct cache_site *site, uint64_t size)
{
    int file = openat(site->directory, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);

    if (file < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT))
        file = make_named(site);
    MUST(file, "cannot make a file in '%s'", site->rules->path);
    reserve(site, file, size);
    return file;
}

/* A program that makes filesystems; what it needs no name for is open at `file`. */
struct maker {
    char *const *argv;
    const char *package;
    int program; /* -1: found on the path */
    int file;
};

static _Noreturn void execute(const struct maker *maker, int said)
{
    char program[64];

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || dup2(said, STDOUT_FILENO) < 0 ||
        dup2(said, STDERR_FILENO) < 0 || fcntl(maker->file, F_SETFD, 0) < 0 ||
        setenv("PATH", "/usr/sbin:/sbin:/usr/bin:/bin", 1) < 0)
        _exit(EXIT_FAILURE);
    if (maker->program < 0) {
        execvp(maker->argv[0], maker->argv);
    } else if (fcntl(maker->program, F_SETFD, 0) == 0) {
        /* A script is opened again, by its interpreter. */
        snprintf(program, sizeof program, "/proc/self/fd/%d", maker->program);
        execv(program, maker->argv);
    }
    _exit(EXIT_NOT_FOUND);
}

/* The first line of what is said; the rest is read, so that the program can go on saying it. */
static void read_first_line(int from, char line[SAID_MOST])
{
    size_t length = 0;
    char rest[512];
    ssize_t got;

    do {
        got = length < SAID_MOST - 1 ? read(from, line + length, SAID_MOST - 1 - length)
                                     : read(from, rest, sizeof rest);
        if (got > 0 && length < SAID_MOST - 1)
            length += (size_t)got;
    } while (got > 0 || (got < 0 && errno == EINTR));
    line[length] = '\0';
    line[strcspn(line, "\n")] = '\0';
}

static void run(const struct maker *maker)
{
    char line[SAID_MOST];
    int talk[2], status;
    pid_t child;

    MUST(pipe2(talk, O_CLOEXEC), "cannot start '%s'", maker->argv[0]);
    child = fork();
    MUST(child, "cannot start '%s'", maker->argv[0]);
    if (child == 0)
        execute(maker, talk[1]);
    close(talk[1]);
    read_first_line(talk[0], line);
    close(talk[0]);
    MUST(waitpid(child, &status, 0), "cannot wait for '%s'", maker->argv[0]);
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_NOT_FOUND)
        fail(0, hint("root: install %s", maker->package), "'%s' was not found", maker->argv[0]);
    if (status != 0)
        fail(0, NULL, "'%s' cannot make a cache: '%s'", maker->argv[0], line);
}

/* Neither gives back what is reserved (-K, nodiscard), nor writes zeros over it. */
static void format(const struct cache_site *site, int file, const char *type)
{
    char path[64];
    char *const xfs[] = {(char *)"mkfs.xfs", (char *)"-q", (char *)"-f", (char *)"-K", path, NULL};
    char *const ext4[] = {(char *)"mkfs.ext4",
                          (char *)"-q",
                          (char *)"-F",
                          (char *)"-m",
                          (char *)"0",
                          (char *)"-E",
                          (char *)"nodiscard,lazy_itable_init=1,lazy_journal_init=1",
                          path,
                          NULL};

    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    if (strcmp(type, "xfs") == 0 && site->mkfs_xfs < 0 && site->rules->mkfs_xfs != NULL)
        fail(0, "root: install xfsprogs", "'%s' (mkfsXfsPath) cannot be opened",
             site->rules->mkfs_xfs);
    if (strcmp(type, "xfs") == 0)
        run(&(struct maker){xfs, "xfsprogs", site->mkfs_xfs, file});
    else if (strcmp(type, "ext4") == 0)
        run(&(struct maker){ext4, "e2fsprogs", -1, file});
    else
        fail(0, "fs=xfs or fs=ext4", "a perNodeCache cannot be of the type '%s'", type);
}

/* What a cache is that is to be of no certain type. */
static const char *usual_type(const struct words *types)
{
    return types->count > 0 && !words_have(types, "xfs") && words_have(types, "ext4") ? "ext4"
                                                                                     : "xfs";
}

void cache_mount(const struct cache_site *site, const struct volume *volume, int place,
                 const char *name, uid_t uid, gid_t gid)
{
    const char *type = volume->cache_type != NULL ? volume->cache_type : usual_type(&site->rules->types);
    int file = make_file(site, volume->cache_size);

    format(site, file, type);
    loop_mount_cache(file, type, place, name, uid, gid);
    close(file);
}
