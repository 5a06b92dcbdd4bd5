#include "binds.h"

#include "fail.h"
#include "files.h"
#include "trees.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What no home and no working directory may be, by whatever name: the host's root would be
   reachable, or its configuration. */
static const char *const unbindable[] = {"/etc", "/proc", "/sys", "/dev"};

static int is_place_of_a_caller(const char *path)
{
    for (size_t at = 0; at < sizeof unbindable / sizeof unbindable[0]; at++)
        if (path_within(path, unbindable[at]))
            return 0;
    return 1;
}

/* Whether a source may be missing: what users and sites name must be there. */
static int is_needed(const struct wish *wish)
{
    return (wish->kind == WISH_BIND || wish->kind == WISH_SPREAD) && !wish->optional;
}

static _Noreturn void missing(const struct plan *plan, const struct wish *wish)
{
    fail(errno, wish_origin(wish, plan), "cannot find '%s', to be mounted at '%s'", wish->source,
         wish->target);
}

/* The kernel's own are what they are in this mount namespace, which is in the key. */
static int can_change(const struct wish *wish)
{
    return wish->kind != WISH_CACHE &&
           (wish->kind != WISH_STANDARD || volume_forbidden(wish->source, ASKED_BY_USER) == NULL);
}

void binds_look(struct plan *plan)
{
    for (size_t at = 0; at < plan->count; at++)
        if (can_change(&plan->wishes[at]))
            file_id_read(&plan->wishes[at].id, AT_FDCWD, plan->wishes[at].source);
}

int binds_have_changed(const struct plan *plan)
{
    for (size_t at = 0; at < plan->count; at++) {
        const struct wish *wish = &plan->wishes[at];
        struct file_id id;

        if (!can_change(wish))
            continue;
        file_id_read(&id, AT_FDCWD, wish->source);
        if (!file_id_is_same(&id, &wish->id))
            return 1;
    }
    return 0;
}

void binds_find(const struct plan *plan)
{
    for (size_t at = 0; at < plan->count; at++) {
        const struct wish *wish = &plan->wishes[at];

        errno = wish->id.error;
        if (is_needed(wish) && errno != 0)
            missing(plan, wish);
    }
}

static struct bind *add(struct binds *binds, const struct wish *wish)
{
    struct bind *bind;

    binds->list = must_grow(binds->list, binds->count, &binds->room, sizeof *binds->list);
    bind = &binds->list[binds->count++];
    *bind = (struct bind){.wish = wish,
                          .path = wish->source,
                          .wanted = wish->target,
                          .source = -1,
                          .type = S_IFDIR,
                          .tree = -1};
    return bind;
}

/* Whether the file that is open is another one than the container's key says: then its name has
   come to mean another file meanwhile. */
static int is_another(const struct wish *wish, int source)
{
    struct file_id id;

    if (wish->kind == WISH_SPREAD || !can_change(wish))
        return 0;
    file_id_read(&id, source, "");
    return !file_id_is_same(&id, &wish->id);
}

/* By whatever name, as of a bind mount. */
static int is_root(const struct stat *status)
{
    struct stat root;

    return stat("/", &root) == 0 && root.st_dev == status->st_dev && root.st_ino == status->st_ino;
}

/* Whether what is open may be seen in the container; the host's root never. */
static int is_bindable(const struct wish *wish, int source, const struct stat *status)
{
    char path[PATH_MAX];

    if (path_of(source, path, sizeof path) < 0 || path[0] != '/' || strcmp(path, "/") == 0 ||
        is_root(status))
        return 0;
    if (wish->kind == WISH_HOME || wish->kind == WISH_CWD)
        return S_ISDIR(status->st_mode) && is_place_of_a_caller(path);
    return 1;
}

static void open_source(struct binds *binds, const struct wish *wish, const char *path,
                        const char *target)
{
    int source = open(path, O_PATH | O_CLOEXEC);
    struct stat status;
    struct bind *bind;

    if (source < 0) {
        if (is_needed(wish))
            missing(binds->plan, wish);
        binds->is_changed |= wish->id.error == 0;
        return;
    }
    MUST(fstat(source, &status), "cannot look at '%s'", path);
    binds->is_changed |= is_another(wish, source);
    if (!is_bindable(wish, source, &status)) {
        if (is_needed(wish))
            fail(0, wish_origin(wish, binds->plan),
                 "cannot mount '%s' at '%s': the host's root must not be reachable", path, target);
        close(source);
        return;
    }
    bind = add(binds, wish);
    bind->path = path;
    bind->wanted = target;
    bind->type = status.st_mode & S_IFMT;
    bind->owner = status.st_uid;
    bind->tree = tree_copy(source, wish->attributes);
    /* A caller may have few descriptors. */
    if (bind->tree >= 0)
        close(source);
    else
        bind->source = source;
}

/* Each thing in a directory by itself; what modules bring will lie in its `modules`. */
static void open_all_in(struct binds *binds, const struct wish *wish)
{
    DIR *directory = opendir(wish->source);
    struct dirent *entry;

    if (directory == NULL)
        missing(binds->plan, wish);
    while ((entry = readdir(directory)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            strcmp(entry->d_name, "modules") != 0)
            open_source(binds, wish, path_join(wish->source, entry->d_name),
                        path_join(wish->target, entry->d_name));
    closedir(directory);
}

void binds_open(struct binds *binds, const struct plan *plan)
{
    memset(binds, 0, sizeof *binds);
    binds->plan = plan;
    for (size_t at = 0; at < plan->count; at++) {
        const struct wish *wish = &plan->wishes[at];

        if (wish->kind == WISH_CACHE)
            add(binds, wish);
        else if (wish->kind == WISH_SPREAD)
            open_all_in(binds, wish);
        else
            open_source(binds, wish, wish->source, wish->target);
    }
}
