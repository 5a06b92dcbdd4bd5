#include "skeleton.h"

#include "fail.h"
#include "files.h"
#include "inside.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Nothing is made in what a hook has mounted: that is a directory of the node's. */
static void must_be_ours(const char *resolved, const char *path)
{
    struct stat status;

    if (inside_is_mounted(resolved) && lstat(path, &status) < 0)
        fail(0, "make it on the node, or choose another place",
             "cannot make '%s' in the container: a hook has mounted a directory there", resolved);
}

/* A link that a later hook has put there would lead to the node. */
static void must_be_directory(const char *resolved, const char *path)
{
    struct stat status;

    if (lstat(path, &status) == 0 && S_ISLNK(status.st_mode))
        fail(0, "let hooks leave directories that they find",
             "cannot make '%s' in the container: a hook has made a link of '%s'", resolved,
             path + strlen(SKELETON_DIR));
}

/* Take away the file that a hook has made at `path`; what it has mounted there stays. */
static int make_way(const char *resolved, const char *path)
{
    if (inside_is_mounted(resolved))
        return 0;
    unlink(path);
    return 1;
}

void skeleton_directory(const char *resolved)
{
    const char *end = resolved;
    char path[PATH_MAX], image[PATH_MAX];
    struct stat status;

    while (*end != '\0') {
        int length;

        end += 1 + strcspn(end + 1, "/");
        length = (int)(end - resolved);
        path_format(path, SKELETON_DIR "%.*s", length, resolved);
        path_format(image, IMAGE_DIR "%.*s", length, resolved);
        must_be_ours(resolved, path);
        if (mkdir(path, 0755) == 0) {
            if (inside_is_cut(image + strlen(IMAGE_DIR)) || lstat(image, &status) < 0)
                continue;
            /* Of two directories laid over each other the upper one's mode counts. */
            if (S_ISDIR(status.st_mode))
                MUST(chmod(path, status.st_mode & 07777), "cannot make '%s'", path);
            else if (*end != '\0')
                fail(0, NULL, "cannot make '%s' in the container: '%.*s' is a file in the image",
                     resolved, length, resolved);
        } else if (errno != EEXIST) {
            fail(errno, NULL, "cannot make '%s' in the container", resolved);
        } else {
            must_be_directory(resolved, path);
        }
    }
}

void skeleton_file(const char *resolved, const char *bytes, size_t length)
{
    char path[PATH_MAX];

    path_format(path, SKELETON_DIR "%s", resolved);
    if (make_way(resolved, path))
        bytes_write(path, bytes, length);
}

void skeleton_link(const char *resolved, const char *target)
{
    char path[PATH_MAX];

    path_format(path, SKELETON_DIR "%s", resolved);
    if (make_way(resolved, path))
        MUST(symlink(target, path), "cannot make '%s' in the container", resolved);
}

void skeleton_mount_point(const char *resolved)
{
    char path[PATH_MAX], *slash;
    struct stat status;

    path_format(path, "%s", resolved);
    slash = strrchr(path, '/');
    *slash = '\0';
    if (slash > path)
        skeleton_directory(path);
    path_format(path, SKELETON_DIR "%s", resolved);
    must_be_ours(resolved, path);
    /* One of the container's own files will do as well. */
    if (lstat(path, &status) < 0)
        bytes_write(path, "", 0);
}

void skeleton_new_link(const char *resolved, const char *target)
{
    char path[PATH_MAX], *slash;

    path_format(path, "%s", resolved);
    slash = strrchr(path, '/');
    *slash = '\0';
    if (slash > path)
        skeleton_directory(path);
    path_format(path, SKELETON_DIR "%s", resolved);
    if (symlink(target, path) < 0 && errno != EEXIST)
        fail(errno, NULL, "cannot make '%s' in the container", resolved);
}
