#include "ahead.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__aarch64__)
#define TUPLE "aarch64-linux-gnu"
#define LOADER "ld-linux-aarch64.so.1"
#elif defined(__powerpc64__)
#define TUPLE "powerpc64le-linux-gnu"
#define LOADER "ld64.so.2"
#else
#define TUPLE "x86_64-linux-gnu"
#define LOADER "ld-linux-x86-64.so.2"
#endif

/* Enough for any libc. */
enum { BLOCKS_AHEAD = 24 };

/* Where distributions have them; in an image of which one is a link, another is not. */
static const char *const directories[] = {"usr/lib/" TUPLE, "lib/" TUPLE, "usr/lib64", "lib64"};
static const char *const files[] = {LOADER, "libc.so.6"};

/* A directory, by a path without links; 0 if it is none. */
static int find_directory(struct squashfs *fs, const char *path, struct inode *inode)
{
    uint64_t reference = fs->root;

    while (squashfs_inode(fs, reference, inode) == 0 && S_ISDIR(inode->mode)) {
        size_t length = strcspn(path, "/");

        if (length == 0)
            return 1;
        if (squashfs_lookup(fs, inode, path, length, &reference) < 0)
            return 0;
        path += length + (path[length] == '/');
    }
    return 0;
}

/* A file in the directory, or what a link of this name says that is in it, too. */
static int find_file(struct squashfs *fs, const struct inode *directory, const char *name,
                     struct inode *inode)
{
    char target[SQUASHFS_NAME_LONGEST];
    uint64_t reference;
    ssize_t length;

    if (squashfs_lookup(fs, directory, name, strlen(name), &reference) < 0 ||
        squashfs_inode(fs, reference, inode) < 0)
        return 0;
    if (!S_ISLNK(inode->mode))
        return S_ISREG(inode->mode);
    length = squashfs_readlink(fs, inode, target, sizeof target);
    return length > 0 && squashfs_lookup(fs, directory, target, (size_t)length, &reference) == 0 &&
           squashfs_inode(fs, reference, inode) == 0 && S_ISREG(inode->mode);
}

int ahead_plan(struct squashfs *fs)
{
    struct inode directory, file;

    if (blocks_ahead_begin(&fs->data, BLOCKS_AHEAD) < 0)
        return -1;
    for (size_t at = 0; at < sizeof directories / sizeof directories[0]; at++)
        if (find_directory(fs, directories[at], &directory))
            for (size_t name = 0; name < sizeof files / sizeof files[0]; name++)
                if (find_file(fs, &directory, files[name], &file))
                    squashfs_ahead(fs, &file);
    return 0;
}

static void *read_ahead(void *closure)
{
    const struct sched_param lowest = {0};
    struct squashfs *fs = closure;

    if (ahead_plan(fs) < 0)
        return NULL;
    /* On processors only that nobody else wants.  musl's own function does nothing, and glibc's is
       for the whole process. */
    syscall(SYS_sched_setscheduler, 0, SCHED_IDLE, &lowest);
    blocks_ahead_run(&fs->data);
    return NULL;
}

/* Whether no more tasks want to run than there are processors (proc_loadavg(5)). */
static int is_idle(int processors)
{
    char text[128] = "";
    int file = open("/proc/loadavg", O_RDONLY | O_CLOEXEC), running = 0;
    ssize_t got = file < 0 ? -1 : read(file, text, sizeof text - 1);

    if (file >= 0)
        close(file);
    return got > 0 && sscanf(text, "%*s %*s %*s %d", &running) == 1 && running <= processors;
}

void ahead_begin(struct squashfs *fs, int processors)
{
    pthread_t thread;

    if (is_idle(processors) && pthread_create(&thread, NULL, read_ahead, fs) == 0)
        pthread_detach(thread);
}
