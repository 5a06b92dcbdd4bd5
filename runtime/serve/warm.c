#include "warm.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { LINKS_MOST = 8, LARGEST = 4 << 20 };

/* In the order in which they are read; glibc's and musl's, as Debian's and as others place them. */
static const char *const paths[] = {
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib/aarch64-linux-gnu/libc.so.6",
    "/lib64/libc.so.6",
    "/lib/ld-musl-x86_64.so.1",
    "/lib/ld-musl-aarch64.so.1",
};

/* Put a link's target before the rest of the path; 0 if that becomes too long. */
static int follow(struct squashfs *fs, const struct inode *link, char path[PATH_MAX],
                  const char *rest)
{
    char target[PATH_MAX], joined[PATH_MAX];
    ssize_t length = squashfs_readlink(fs, link, target, sizeof target);
    int written = length < 0 ? -1 : snprintf(joined, sizeof joined, "%.*s%s", (int)length, target,
                                             rest);

    if (written < 0 || written >= PATH_MAX)
        return 0;
    strcpy(path, joined);
    return 1;
}

/* The inode at `name`; names with ".." are not for us to follow. */
static int find(struct squashfs *fs, const char *name, struct inode *inode)
{
    char path[PATH_MAX];
    const char *at = path;
    struct inode directory;
    int links = 0;

    snprintf(path, sizeof path, "%s", name);
    if (squashfs_inode(fs, fs->root, inode) < 0)
        return 0;
    while (at += strspn(at, "/"), *at != '\0') {
        size_t length = strcspn(at, "/");
        uint64_t reference;

        directory = *inode;
        if (squashfs_lookup(fs, &directory, at, length, &reference) < 0 ||
            squashfs_inode(fs, reference, inode) < 0)
            return 0;
        at += length;
        if (!S_ISLNK(inode->mode))
            continue;
        if (++links > LINKS_MOST || !follow(fs, inode, path, at))
            return 0;
        at = path;
        if (*at != '/')
            *inode = directory;
        else if (squashfs_inode(fs, fs->root, inode) < 0)
            return 0;
    }
    return S_ISREG(inode->mode);
}

void warm(struct squashfs *fs)
{
    struct inode inode;

    for (size_t at = 0; at < sizeof paths / sizeof paths[0]; at++)
        if (find(fs, paths[at], &inode) && inode.size <= LARGEST)
            for (uint64_t offset = 0; offset < inode.size; offset += fs->block_size) {
                char byte;

                if (squashfs_read(fs, &inode, &byte, 1, offset) < 0)
                    return;
            }
}
