#include "underlay.h"

#include "fail.h"
#include "files.h"
#include "inside.h"
#include "words.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static int is_special(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static void copy_link(const char *from, const char *to)
{
    char target[PATH_MAX];
    ssize_t length = readlink(from, target, sizeof target - 1);

    MUST(length, "cannot read the link '%s'", from);
    target[length] = '\0';
    MUST(symlink(target, to), "cannot make '%s'", to);
}

/* Let the skeleton's `to` be the image's `from`. */
static void show(const char *from, const char *to)
{
    struct stat status;

    MUST(lstat(from, &status), "cannot look at '%s'", from);
    if (S_ISLNK(status.st_mode)) {
        copy_link(from, to);
        return;
    }
    if (S_ISDIR(status.st_mode))
        MUST(mkdir(to, 0755), "cannot make '%s'", to);
    else
        bytes_write(to, "", 0);
    MUST(mount(from, to, NULL, MS_BIND, NULL), "cannot bind '%s'", from);
}

/* The skeleton's own directories below `place`, to be completed as well. */
static void add_directories(struct words *places, const char *place)
{
    DIR *directory = opendir(path_join(SKELETON_DIR, place));
    struct dirent *entry;

    if (directory == NULL)
        fail(errno, NULL, "cannot read the skeleton '%s'", place);
    while ((entry = readdir(directory)) != NULL) {
        const char *path = path_join(place, entry->d_name);
        struct stat status;

        if (!is_special(entry->d_name) && lstat(path_join(SKELETON_DIR, path), &status) == 0 &&
            S_ISDIR(status.st_mode) && !inside_is_mounted(path))
            words_add(places, path);
    }
    closedir(directory);
}

static void complete(const char *place)
{
    DIR *directory;
    struct dirent *entry;

    if (inside_is_cut(path_join(place, ".")))
        return;
    directory = opendir(path_join(IMAGE_DIR, place));
    if (directory == NULL) {
        if (errno != ENOENT && errno != ENOTDIR)
            fail(errno, NULL, "cannot read '%s' in the image", place);
        return;
    }
    while ((entry = readdir(directory)) != NULL) {
        const char *path = path_join(place, entry->d_name);
        const char *to = path_join(SKELETON_DIR, path);
        struct stat status;

        if (!is_special(entry->d_name) && lstat(to, &status) < 0)
            show(path_join(IMAGE_DIR, path), to);
    }
    closedir(directory);
}

void underlay_build(void)
{
    struct words places = {NULL, 0, 0};

    words_add(&places, "");
    for (size_t at = 0; at < places.count; at++) {
        add_directories(&places, places.list[at]);
        complete(places.list[at]);
    }
    free(places.list);
    MUST(mount(SKELETON_DIR, ROOT_DIR, NULL, MS_BIND | MS_REC, NULL), "cannot make the new root");
    MUST(mount(NULL, ROOT_DIR, NULL,
               MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL),
         "cannot make the new root read-only");
}
