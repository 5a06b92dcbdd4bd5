#include "inside.h"

#include "fail.h"
#include "files.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_openat2
#define SYS_openat2 437
#endif

/* struct open_how and flags of linux/openat2.h, which older headers lack. */
struct open_rules {
    uint64_t flags, mode, resolve;
};

enum { NO_MAGIC_LINKS = 2, IN_ROOT = 0x10 };

enum { LINKS_MOST = 40 }; /* as the kernel */

static void drop_last(char path[PATH_MAX])
{
    char *slash = strrchr(path, '/');

    if (slash != NULL)
        *slash = '\0';
}

/* Whether hooks have run, and the filesystem of the skeleton itself. */
static int skeleton_counts;
static dev_t skeleton_device;

void inside_see_skeleton(void)
{
    struct stat status;

    MUST(stat(SKELETON_DIR, &status), "cannot look at the root that hooks have left");
    skeleton_device = status.st_dev;
    skeleton_counts = 1;
}

/* What hooks have left at `path`, or at the last directory above it that they have made. */
static void look_above(const char *path, struct stat *status)
{
    char above[PATH_MAX], at[PATH_MAX];

    path_format(above, "%s", path);
    do {
        path_format(at, SKELETON_DIR "%s", above);
        if (lstat(at, status) == 0)
            return;
        drop_last(above);
    } while (above[0] != '\0');
    MUST(stat(SKELETON_DIR, status), "cannot look at the root that hooks have left");
}

int inside_is_mounted(const char *resolved)
{
    struct stat status;

    if (!skeleton_counts)
        return 0;
    look_above(resolved, &status);
    return status.st_dev != skeleton_device;
}

int inside_is_cut(const char *path)
{
    const char *end = path;
    char at[PATH_MAX];
    struct stat status;

    while (skeleton_counts && *end != '\0') {
        end += 1 + strcspn(end + 1, "/");
        path_format(at, IMAGE_DIR "%.*s", (int)(end - path), path);
        if (*end != '\0' && lstat(at, &status) == 0 && !S_ISDIR(status.st_mode))
            return 1;
    }
    return 0;
}

/* Where what the container will have at `path` is now: what a hook has made hides the image's. */
static void find(const char *path, char at[PATH_MAX])
{
    struct stat status;

    if (skeleton_counts) {
        path_format(at, SKELETON_DIR "%s", path);
        if (lstat(at, &status) == 0)
            return;
        look_above(path, &status);
        if (status.st_dev != skeleton_device || !S_ISDIR(status.st_mode) ||
            inside_is_cut(path))
            return;
    }
    path_format(at, IMAGE_DIR "%s", path);
}

static mode_t look(const char *path)
{
    char at[PATH_MAX];
    struct stat status;

    find(path, at);
    if (lstat(at, &status) == 0)
        return status.st_mode;
    if (errno != ENOENT && errno != ENOTDIR)
        fail(errno, NULL, "cannot look at '%s' in the image", path);
    return 0;
}

/* Put what the link at `path` holds before the `rest` that was still to be followed. */
static void follow(const char *path, char rest[PATH_MAX])
{
    char at[PATH_MAX], target[PATH_MAX], joined[PATH_MAX];
    ssize_t length;

    find(path, at);
    length = readlink(at, target, sizeof target - 1);
    MUST(length, "cannot follow '%s' in the image", path);
    target[length] = '\0';
    path_format(joined, "%s/%s", target, rest);
    path_format(rest, "%s", joined);
}

/* Cut the first component off `rest`; 0 if there is none. */
static int next_component(char rest[PATH_MAX], char component[PATH_MAX])
{
    char *start = rest + strspn(rest, "/");
    size_t length = strcspn(start, "/");

    path_format(component, "%.*s", (int)length, start);
    memmove(rest, start + length, strlen(start + length) + 1);
    return length > 0;
}

mode_t inside_try_resolve(const char *path, char resolved[PATH_MAX])
{
    char rest[PATH_MAX], component[PATH_MAX], next[PATH_MAX];
    mode_t mode = S_IFDIR;
    int links = 0;

    path_format(rest, "%s", path);
    resolved[0] = '\0';
    while (next_component(rest, component)) {
        if (strcmp(component, ".") == 0)
            continue;
        if (strcmp(component, "..") == 0) {
            drop_last(resolved);
            mode = look(resolved);
            continue;
        }
        path_format(next, "%s/%s", resolved, component);
        mode = look(next);
        if (!S_ISLNK(mode)) {
            path_format(resolved, "%s", next);
            continue;
        }
        if (++links > LINKS_MOST) {
            resolved[0] = '\0';
            return 0;
        }
        follow(next, rest);
        if (rest[0] == '/')
            resolved[0] = '\0';
        mode = look(resolved);
    }
    if (resolved[0] == '\0')
        path_format(resolved, "/");
    return mode;
}

mode_t inside_resolve(const char *path, char resolved[PATH_MAX])
{
    mode_t mode = inside_try_resolve(path, resolved);

    if (resolved[0] == '\0')
        fail(ELOOP, NULL, "cannot follow '%s' in the image", path);
    return mode;
}

int inside_is_used(const char *resolved)
{
    char path[PATH_MAX];
    struct dirent *entry;
    DIR *directory;
    int used = 0;

    path_format(path, "%s%s", inside_is_mounted(resolved) ? SKELETON_DIR : IMAGE_DIR, resolved);
    directory = opendir(path);
    if (directory == NULL)
        return errno != ENOENT && errno != ENOTDIR;
    while (!used && (entry = readdir(directory)) != NULL)
        used = strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(directory);
    return used;
}

/* Kernels before 5.6: one component after the other. */
static int walk(int root, const char *path)
{
    char rest[PATH_MAX], component[PATH_MAX];
    struct stat status;
    int at = fcntl(root, F_DUPFD_CLOEXEC, 0);

    path_format(rest, "%s", path);
    while (at >= 0 && next_component(rest, component)) {
        int next = openat(at, component, O_PATH | O_NOFOLLOW | O_CLOEXEC);

        close(at);
        at = next;
        if (at >= 0 && fstat(at, &status) == 0 && S_ISLNK(status.st_mode)) {
            close(at);
            errno = ELOOP;
            return -1;
        }
    }
    return at;
}

int inside_open(int root, const char *path)
{
    struct open_rules rules = {O_PATH | O_CLOEXEC, 0, IN_ROOT | NO_MAGIC_LINKS};
    int fd = (int)syscall(SYS_openat2, root, path, &rules, sizeof rules);

    /* A seccomp filter that does not know the call says EPERM. */
    return fd >= 0 || (errno != ENOSYS && errno != EPERM) ? fd : walk(root, path);
}
