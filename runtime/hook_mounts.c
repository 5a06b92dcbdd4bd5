#include "hook_mounts.h"

#include "fail.h"
#include "files.h"
#include "inside.h"
#include "trees.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

static const char *const directories[STAGE_DIRECTORIES] = {
    "/etc", "/etc/udiImage", "/opt", "/opt/udiImage", "/opt/udiImage/modules", "/var",
    "/var/spool", "/var/run", "/var/tmp", "/var/empty", "/proc", "/sys", "/dev", "/tmp",
};

static void place_of_skeleton(char path[PATH_MAX])
{
    int fd = open(SKELETON_DIR, O_PATH | O_DIRECTORY | O_CLOEXEC);

    MUST(fd, "cannot open the root being built");
    MUST(path_of(fd, path, PATH_MAX), "cannot tell where the root is built");
    close(fd);
}

/* What a line of mountinfo says is mounted: device and directory, of the third and fourth field. */
static char *source_of(const char *line)
{
    const char *end;
    char *source;

    for (int field = 0; field < 2; field++)
        line += strcspn(line, " ") + (line[strcspn(line, " ")] == ' ');
    end = line + strcspn(line, " ");
    end += *end == ' ';
    end += strcspn(end, " ");
    source = strndup(line, (size_t)(end - line));
    if (source == NULL)
        fail(ENOMEM, NULL, "cannot go on");
    return source;
}

static void add(struct below *below, const char *line, char *source, const char *place)
{
    struct mounted *mounted;

    below->list = must_grow(below->list, below->count, &below->room, sizeof *below->list);
    mounted = &below->list[below->count++];
    mounted->id = strtoul(line, NULL, 10);
    mounted->source = source;
    mounted->place = must_copy(place);
}

static size_t depth(const char *path)
{
    size_t slashes = 0;

    for (; *path != '\0'; path++)
        slashes += *path == '/';
    return slashes;
}

static int compare(const void *one, const void *other)
{
    const struct mounted *first = one, *second = other;
    size_t left = depth(first->place), right = depth(second->place);

    return left != right ? (left > right) - (left < right) : strcmp(first->place, second->place);
}

/* What is mounted on and beneath the skeleton, the shallowest first. */
static void read_below(struct below *below)
{
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    char top[PATH_MAX], place[PATH_MAX], *line = NULL;
    size_t size = 0;

    memset(below, 0, sizeof *below);
    if (mounts == NULL)
        fail(errno, NULL, "cannot read '/proc/self/mountinfo'");
    place_of_skeleton(top);
    while (getline(&line, &size, mounts) >= 0) {
        if (!mountinfo_place(line, place))
            continue;
        if (strcmp(place, "/") == 0)
            words_add(&below->roots, source_of(line));
        else if (path_within(place, top))
            add(below, line, source_of(line), place + strlen(top));
    }
    free(line);
    fclose(mounts);
    if (below->count > 0)
        qsort(below->list, below->count, sizeof *below->list, compare);
}

static void forget(struct below *below)
{
    for (size_t at = 0; at < below->count; at++) {
        free(below->list[at].source);
        free(below->list[at].place);
    }
    free(below->list);
}

/* The kernel gives the number of a mount that is gone to the next one. */
static int is_known(const struct below *below, const struct mounted *mounted)
{
    for (size_t at = 0; at < below->count; at++)
        if (below->list[at].id == mounted->id &&
            strcmp(below->list[at].source, mounted->source) == 0 &&
            strcmp(below->list[at].place, mounted->place) == 0)
            return 1;
    return 0;
}

/* Whether the image has something at `path`, or a link on the way, which an empty directory must not
   hide for good. */
static int hides(const char *path)
{
    const char *end = path;
    char at[PATH_MAX];
    struct stat status;

    while (*end != '\0') {
        end += 1 + strcspn(end + 1, "/");
        path_format(at, IMAGE_DIR "%.*s", (int)(end - path), path);
        if (lstat(at, &status) < 0)
            return 0;
        if (S_ISLNK(status.st_mode))
            return 1;
    }
    return 1;
}

/* Whether all above `path` are directories of the skeleton: neither links nor mounts of hooks. */
static int is_within(const struct hook_stage *stage, const char *path)
{
    const char *end = path + 1 + strcspn(path + 1, "/");
    char at[PATH_MAX];
    struct stat status;

    for (; *end != '\0'; end += 1 + strcspn(end + 1, "/")) {
        path_format(at, SKELETON_DIR "%.*s", (int)(end - path), path);
        if (lstat(at, &status) < 0 || !S_ISDIR(status.st_mode) ||
            status.st_dev != stage->root.st_dev)
            return 0;
    }
    return 1;
}

static void make_directories(struct hook_stage *stage)
{
    char path[PATH_MAX];

    for (size_t at = 0; at < STAGE_DIRECTORIES; at++) {
        path_format(path, SKELETON_DIR "%s", directories[at]);
        stage->passing[at] = is_within(stage, directories[at]) && mkdir(path, 0755) == 0 &&
                             hides(directories[at]);
    }
}

static void remove_directories(const struct hook_stage *stage)
{
    char path[PATH_MAX];

    for (size_t at = STAGE_DIRECTORIES; at > 0; at--) {
        if (!stage->passing[at - 1] || !is_within(stage, directories[at - 1]))
            continue;
        path_format(path, SKELETON_DIR "%s", directories[at - 1]);
        rmdir(path);
    }
}

/* Where scripts of Shifter's sites expect the root, if the node has such a directory. */
static int is_usable(const char *udi_mount)
{
    struct stat status;

    return udi_mount != NULL && strcmp(udi_mount, "/") != 0 && stat(udi_mount, &status) == 0 &&
           S_ISDIR(status.st_mode);
}

void hook_stage_begin(struct hook_stage *stage, const char *udi_mount)
{
    memset(stage, 0, sizeof *stage);
    read_below(&stage->before);
    MUST(stat(SKELETON_DIR, &stage->root), "cannot look at the root being built");
    make_directories(stage);
    stage->is_moved = is_usable(udi_mount);
    if (stage->is_moved) {
        path_format(stage->place, "%s", udi_mount);
        MUST(mount(SKELETON_DIR, udi_mount, NULL, MS_MOVE, NULL), "cannot use '%s'", udi_mount);
    } else {
        place_of_skeleton(stage->place);
    }
}

static void leave(const struct hook_stage *stage, const char *script)
{
    struct stat status;

    MUST(stat(stage->place, &status), "cannot look at the root that the hook '%s' has left",
         script);
    if (status.st_dev != stage->root.st_dev || status.st_ino != stage->root.st_ino)
        fail(0, "mount into directories of it", "the hook '%s' has mounted over the root itself",
             script);
    if (stage->is_moved)
        MUST(mount(stage->place, SKELETON_DIR, NULL, MS_MOVE, NULL), "cannot leave '%s'",
             stage->place);
}

/* What was only made in memory stays as unwritable as the rest of the root. */
static void restrict_one(const struct hook_stage *stage, const char *place, unsigned long attributes,
                         int is_writable)
{
    char path[PATH_MAX];
    struct stat status;
    int fd;

    path_format(path, SKELETON_DIR "%s", place);
    fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    /* Another mount hides it. */
    if (fd < 0)
        return;
    MUST(fstat(fd, &status), "cannot look at '%s'", place);
    if (!is_writable && status.st_dev == stage->root.st_dev)
        attributes |= MS_RDONLY;
    tree_restrict(fd, attributes);
    close(fd);
}

static void check(const struct mounted *mounted, const struct words *roots, int is_old,
                  const char *script)
{
    if (mounted->place[0] == '\0' && !is_old)
        fail(0, "mount into directories of it", "the hook '%s' has mounted over the root itself",
             script);
    if (words_have(roots, mounted->source))
        fail(0, "mount directories of it, one by one",
             "the hook '%s' has mounted the host's root at '%s': it must not be reachable", script,
             mounted->place);
}

void hook_stage_end(struct hook_stage *stage, const char *script, int is_slave, int is_writable)
{
    struct below after;

    leave(stage, script);
    /* The kernel moves nothing out of what a hook has made shared. */
    MUST(mount(NULL, SKELETON_DIR, NULL, MS_PRIVATE, NULL), "cannot go on after the hook '%s'",
         script);
    read_below(&after);
    for (size_t at = 0; at < after.count; at++) {
        const struct mounted *mounted = &after.list[at];
        int is_old = is_known(&stage->before, mounted);
        unsigned long propagation = is_old ? 0 : is_slave ? MS_SLAVE : MS_PRIVATE;

        check(mounted, &after.roots, is_old, script);
        /* The skeleton itself is written to until all is in it. */
        if (mounted->place[0] != '\0')
            restrict_one(stage, mounted->place, MS_NOSUID | MS_NODEV | propagation, is_writable);
    }
    remove_directories(stage);
    forget(&after);
    forget(&stage->before);
}

void hook_mounts_carry(void)
{
    struct below below;
    char from[PATH_MAX], to[PATH_MAX];

    read_below(&below);
    for (size_t at = 0; at < below.count; at++) {
        const char *place = below.list[at].place;
        int is_carried = place[0] == '\0';

        for (size_t before = 0; before < at && !is_carried; before++)
            is_carried = below.list[before].place[0] != '\0' &&
                         path_within(place, below.list[before].place);
        if (is_carried)
            continue;
        path_format(from, SKELETON_DIR "%s", place);
        path_format(to, ROOT_DIR "%s", place);
        MUST(mount(from, to, NULL, MS_MOVE, NULL), "cannot put '%s' into the container", place);
    }
    forget(&below);
}
