#include "trees.h"

#include "fail.h"
#include "files.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_open_tree
#define SYS_open_tree 428
#define SYS_move_mount 429
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

/* Of linux/mount.h and linux/fcntl.h, which older headers lack. */
enum {
    ATTRIBUTE_RDONLY = 1,
    ATTRIBUTE_NOSUID = 2,
    ATTRIBUTE_NODEV = 4,
    MOVE_FROM_DESCRIPTOR = 4,
    MOVE_TO_DESCRIPTOR = 0x40,
    TREE_CLONE = 1,
    DESCRIPTOR_ITSELF = 0x1000,
    RECURSIVE = 0x8000,
};

/* struct mount_attr of linux/mount.h, which older headers lack. */
struct mount_attributes {
    uint64_t set, clear, propagation, user_namespace;
};

static int change_tree(int fd, unsigned long attributes)
{
    struct mount_attributes change = {0, 0, attributes & (MS_PRIVATE | MS_SLAVE), 0};

    change.set = (uint64_t)((attributes & MS_RDONLY ? ATTRIBUTE_RDONLY : 0) |
                            (attributes & MS_NOSUID ? ATTRIBUTE_NOSUID : 0) |
                            (attributes & MS_NODEV ? ATTRIBUTE_NODEV : 0));
    if (change.set == 0 && change.propagation == 0)
        return 0;
    return (int)syscall(SYS_mount_setattr, fd, "", DESCRIPTOR_ITSELF | RECURSIVE, &change,
                        sizeof change);
}

int tree_copy(int source, unsigned long attributes)
{
    int tree = (int)syscall(SYS_open_tree, source, "",
                            TREE_CLONE | O_CLOEXEC | DESCRIPTOR_ITSELF | RECURSIVE);

    if (tree >= 0 && change_tree(tree, attributes) < 0) {
        close(tree);
        tree = -1;
    }
    return tree;
}

int tree_attach(int tree, int source, int target)
{
    char from[64], to[64];

    if (tree >= 0)
        return (int)syscall(SYS_move_mount, tree, "", target, "",
                            MOVE_FROM_DESCRIPTOR | MOVE_TO_DESCRIPTOR);
    snprintf(from, sizeof from, "/proc/self/fd/%d", source);
    snprintf(to, sizeof to, "/proc/self/fd/%d", target);
    return mount(from, to, NULL, MS_BIND | MS_REC, NULL);
}

int path_of(int fd, char *path, size_t size)
{
    char link[64];
    ssize_t length;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, size - 1);
    if (length < 0)
        return -1;
    path[length] = '\0';
    return 0;
}

/* Kernels before 5.12: this mount only, and it must keep the flags that it has, which are locked
   in a user namespace.  All but one have the same bit in statvfs(2) and mount(2). */
static void remount(const char *path, unsigned long attributes)
{
    struct statvfs status;

    MUST(statvfs(path, &status), "cannot restrict the mount '%s'", path);
    attributes |= status.f_flag & (ST_RDONLY | ST_NOSUID | ST_NODEV | ST_NOEXEC | ST_NOATIME |
                                   ST_NODIRATIME);
    attributes |= status.f_flag & ST_RELATIME ? MS_RELATIME : 0;
    MUST(mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | attributes, NULL),
         "cannot restrict the mount '%s'", path);
}

/* Blanks and the like are written as \040. */
int mountinfo_place(const char *line, char place[PATH_MAX])
{
    size_t length = 0;

    for (int field = 0; field < 4; field++) {
        line += strcspn(line, " ");
        line += *line == ' ';
    }
    for (; *line != ' ' && *line != '\0' && length < PATH_MAX - 1; length++) {
        if (line[0] == '\\' && strspn(line + 1, "01234567") >= 3) {
            place[length] = (char)((line[1] - '0') * 64 + (line[2] - '0') * 8 + line[3] - '0');
            line += 4;
        } else {
            place[length] = *line++;
        }
    }
    place[length] = '\0';
    return length < PATH_MAX - 1;
}

void tree_restrict(int mounted, unsigned long attributes)
{
    unsigned long flags = attributes & (MS_RDONLY | MS_NOSUID | MS_NODEV);
    unsigned long propagation = attributes & (MS_PRIVATE | MS_SLAVE);
    char top[PATH_MAX], place[PATH_MAX], *line = NULL;
    size_t size = 0;
    FILE *mounts;
    int error;

    if (change_tree(mounted, attributes) == 0)
        return;
    error = errno;
    MUST(path_of(mounted, top, sizeof top), "cannot restrict a mount");
    if (error != ENOSYS)
        fail(error, NULL, "cannot restrict the mount '%s'", top);
    if (propagation != 0)
        MUST(mount(NULL, top, NULL, MS_REC | propagation, NULL), "cannot change the mount '%s'",
             top);
    mounts = fopen("/proc/self/mountinfo", "re");
    if (mounts == NULL)
        fail(errno, NULL, "cannot restrict the mount '%s'", top);
    while (getline(&line, &size, mounts) >= 0)
        /* What lies beneath must be as read-only as it says. */
        if (mountinfo_place(line, place) &&
            (strcmp(place, top) == 0 || (flags & MS_RDONLY && path_within(place, top))))
            remount(place, flags);
    free(line);
    fclose(mounts);
}
