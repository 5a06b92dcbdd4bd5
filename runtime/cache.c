#include "cache.h"

#include "fail.h"
#include "files.h"
#include "loop.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* A name for the time of mkfs only: it takes no descriptor. */
static char path[PATH_MAX];

static void remove_path(void)
{
    if (path[0] != '\0')
        unlink(path);
    path[0] = '\0';
}

static int make_file(const char *directory, uid_t uid, uint64_t size)
{
    int file;

    path_format(path, "%s/perNodeCache_uid%u.XXXXXX", directory, uid);
    file = mkostemp(path, O_CLOEXEC);
    if (file < 0) {
        path[0] = '\0';
        fail(errno, "perNodeCachePath=/DIRECTORY of this node", "cannot make a file in '%s'",
             directory);
    }
    if (atexit(remove_path) != 0)
        fail(ENOMEM, NULL, "cannot go on");
    MUST(ftruncate(file, (off_t)size), "cannot make a file of %" PRIu64 " bytes in '%s'", size,
         directory);
    return file;
}

static _Noreturn void execute(char *const *argv)
{
    if (setenv("PATH", "/usr/sbin:/sbin:/usr/bin:/bin", 1) < 0)
        _exit(EXIT_FAILURE);
    /* What it says on its standard output is no news to who starts a prologue. */
    dup2(STDERR_FILENO, STDOUT_FILENO);
    execvp(argv[0], argv);
    _exit(EXIT_NOT_FOUND);
}

static void run(char *const *argv, const char *package)
{
    pid_t child = fork();
    int status;

    MUST(child, "cannot start '%s'", argv[0]);
    if (child == 0)
        execute(argv);
    MUST(waitpid(child, &status, 0), "cannot wait for '%s'", argv[0]);
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_NOT_FOUND)
        fail(0, hint("root: install %s", package), "'%s' was not found", argv[0]);
    if (status != 0)
        fail(0, NULL, "'%s' cannot make a cache", argv[0]);
}

static void format(const char *type)
{
    char *const xfs[] = {(char *)"mkfs.xfs", (char *)"-q", (char *)"-f", path, NULL};
    char *const ext4[] = {(char *)"mkfs.ext4", (char *)"-q", (char *)"-F", (char *)"-m", (char *)"0",
                          path, NULL};

    if (strcmp(type, "xfs") == 0)
        run(xfs, "xfsprogs");
    else if (strcmp(type, "ext4") == 0)
        run(ext4, "e2fsprogs");
    else
        fail(0, "fs=xfs or fs=ext4", "a perNodeCache cannot be of the type '%s'", type);
}

void cache_mount(const struct volume *volume, const char *directory, uid_t uid, gid_t gid,
                 const char *target)
{
    const char *type = volume->cache_type != NULL ? volume->cache_type : "xfs";
    int file = make_file(directory, uid, volume->cache_size);

    format(type);
    remove_path();
    loop_mount_writable(file, type, target);
    close(file);
    rmdir(path_join(target, "lost+found"));
    MUST(chown(target, uid, gid), "cannot give '%s' to the user", target);
    MUST(chmod(target, 0755), "cannot give '%s' to the user", target);
}
