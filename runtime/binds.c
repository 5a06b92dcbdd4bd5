#include "binds.h"

#include "fail.h"
#include "files.h"
#include "inside.h"
#include "skeleton.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
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
    ATTRIBUTE_NOSUID = 2,
    ATTRIBUTE_NODEV = 4,
    MOVE_FROM_DESCRIPTOR = 4,
    TREE_CLONE = 1,
    DESCRIPTOR_ITSELF = 0x1000,
    RECURSIVE = 0x8000,
};

/* struct mount_attr of linux/mount.h, which older headers lack. */
struct mount_attributes {
    uint64_t set, clear, propagation, user_namespace;
};

/* In every container, where the host has them. */
static const struct {
    const char *path;
    unsigned long attributes;
} standard[] = {
    {"/proc", 0},
    {"/sys", 0},
    {"/dev", MS_NOSUID},
    {"/tmp", MS_NOSUID | MS_NODEV},
};

/* What no home and no working directory may be, by whatever name: the host's root would be
   reachable, or its configuration; and the new root is being built on /etc. */
static const char *const unbindable[] = {"/etc", "/proc", "/sys", "/dev"};

static int is_bindable(int source)
{
    char link[64], path[PATH_MAX];
    ssize_t length;

    snprintf(link, sizeof link, "/proc/self/fd/%d", source);
    length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return 0;
    path[length] = '\0';
    if (path[0] != '/' || strcmp(path, "/") == 0)
        return 0;
    for (size_t at = 0; at < sizeof unbindable / sizeof unbindable[0]; at++)
        if (path_within(path, unbindable[at]))
            return 0;
    return 1;
}

/* Add the attributes to a mount and to all beneath it; -1 and errno where the kernel cannot. */
static int restrict_tree(int fd, const char *path, unsigned flags, unsigned long attributes)
{
    struct mount_attributes change = {0, 0, 0, 0};

    change.set = (attributes & MS_NOSUID ? ATTRIBUTE_NOSUID : 0) |
                 (attributes & MS_NODEV ? ATTRIBUTE_NODEV : 0);
    if (change.set == 0)
        return 0;
    return (int)syscall(SYS_mount_setattr, fd, path, RECURSIVE | flags, &change, sizeof change);
}

/* Copy the mounts at `source`; kernels before 5.12 cannot, and bind later. */
static int copy_tree(int source, unsigned long attributes)
{
    int tree = (int)syscall(SYS_open_tree, source, "",
                            TREE_CLONE | O_CLOEXEC | DESCRIPTOR_ITSELF | RECURSIVE);

    if (tree >= 0 && restrict_tree(tree, "", DESCRIPTOR_ITSELF, attributes) < 0) {
        close(tree);
        tree = -1;
    }
    return tree;
}

static void add(struct binds *binds, enum bind_kind kind, const char *path,
                unsigned long attributes)
{
    struct bind *bind = &binds->list[binds->count];
    int source = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (source < 0)
        return;
    if (kind != STANDARD && !is_bindable(source)) {
        close(source);
        return;
    }
    *bind = (struct bind){.path = path,
                          .source = source,
                          .tree = copy_tree(source, attributes),
                          .attributes = attributes,
                          .kind = kind};
    binds->count++;
}

void binds_open(struct binds *binds, const char *home, const char *cwd)
{
    memset(binds, 0, sizeof *binds);
    for (size_t at = 0; at < sizeof standard / sizeof standard[0]; at++)
        add(binds, STANDARD, standard[at].path, standard[at].attributes);
    if (home != NULL)
        add(binds, HOME, home, MS_NOSUID | MS_NODEV);
    if (cwd != NULL)
        add(binds, CWD, cwd, MS_NOSUID | MS_NODEV);
}

static size_t depth(const char *path)
{
    size_t slashes = 0;

    for (; *path != '\0'; path++)
        slashes += *path == '/' && path[1] != '\0';
    return slashes;
}

/* Shallower first, so that one may hold the other; the standard ones before all. */
static void sort(struct binds *binds)
{
    struct bind *last = &binds->list[binds->count - 1], *before = last - 1;

    if (binds->count >= 2 && before->kind == HOME && depth(before->target) > depth(last->target)) {
        struct bind home = *before;

        *before = *last;
        *last = home;
    }
}

/* Whether a home or working directory of the host's goes before what the image has there. */
static int prevails(const struct bind *bind, uid_t caller)
{
    struct stat status;

    if (bind->kind == HOME && fstat(bind->source, &status) == 0 && status.st_uid == caller)
        return 1;
    return bind->inside == 0 || (S_ISDIR(bind->inside) && !inside_is_used(bind->target));
}

/* Whether `target` is free: neither inside nor around what is already in its place. */
static int is_free(const struct binds *binds, size_t planned, const char *target, const char *etc)
{
    if (strcmp(target, "/") == 0 || path_within(target, etc) || path_within(etc, target))
        return 0;
    for (size_t at = 0; at < planned; at++) {
        const char *taken = binds->list[at].target;

        if (taken[0] != '\0' && (path_within(target, taken) || path_within(taken, target)))
            return 0;
    }
    return 1;
}

void binds_plan(struct binds *binds, uid_t caller, const char *etc)
{
    for (size_t at = 0; at < binds->count; at++) {
        struct bind *bind = &binds->list[at];

        bind->inside = inside_resolve(bind->path, bind->target);
    }
    sort(binds);
    for (size_t at = 0; at < binds->count; at++) {
        struct bind *bind = &binds->list[at];
        int goes = is_free(binds, at, bind->target, etc);

        if (bind->kind == STANDARD && !goes)
            fail(0, NULL, "cannot put '%s' into the image, where it is '%s'", bind->path,
                 bind->target);
        if (bind->kind != STANDARD && !(goes && prevails(bind, caller)))
            bind->target[0] = '\0';
        else if (!S_ISDIR(bind->inside))
            skeleton_directory(bind->target);
    }
}

static void restrict_mount(const char *path, unsigned long attributes)
{
    struct statvfs status;

    if (restrict_tree(AT_FDCWD, path, 0, attributes) == 0)
        return;
    if (errno != ENOSYS)
        fail(errno, NULL, "cannot restrict the mount '%s'", path);
    /* Kernels before 5.12: this mount only, and it must keep the flags that it has, which are
       locked in a user namespace.  All but one have the same bit in statvfs(2) and mount(2). */
    MUST(statvfs(path, &status), "cannot restrict the mount '%s'", path);
    attributes |= status.f_flag & (ST_RDONLY | ST_NOSUID | ST_NODEV | ST_NOEXEC | ST_NOATIME |
                                   ST_NODIRATIME);
    attributes |= status.f_flag & ST_RELATIME ? MS_RELATIME : 0;
    MUST(mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | attributes, NULL),
         "cannot restrict the mount '%s'", path);
}

void binds_mount(const struct binds *binds)
{
    for (size_t at = 0; at < binds->count; at++) {
        const struct bind *bind = &binds->list[at];
        char source[64], target[PATH_MAX];

        if (bind->target[0] == '\0')
            continue;
        path_format(target, ROOT_DIR "%s", bind->target);
        if (bind->tree >= 0) {
            MUST(syscall(SYS_move_mount, bind->tree, "", AT_FDCWD, target, MOVE_FROM_DESCRIPTOR),
                 "cannot bind '%s'", bind->path);
            continue;
        }
        snprintf(source, sizeof source, "/proc/self/fd/%d", bind->source);
        MUST(mount(source, target, NULL, MS_BIND | MS_REC, NULL), "cannot bind '%s'", bind->path);
        restrict_mount(target, bind->attributes);
    }
}
