/* Where the wishes of a plan are put in the container, and the mounting itself. */
#include "binds.h"
#include "fail.h"
#include "files.h"
#include "inside.h"
#include "prepared.h"
#include "skeleton.h"
#include "trees.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static int is_of_caller(const struct bind *bind)
{
    return bind->wish->kind == WISH_HOME || bind->wish->kind == WISH_CWD;
}

static size_t depth(const char *path)
{
    size_t slashes = 0;

    for (; *path != '\0'; path++)
        slashes += *path == '/' && path[1] != '\0';
    return slashes;
}

/* Of home and working directory the shallower first, so that it may hold the other. */
static void sort(struct binds *binds)
{
    for (size_t at = 1; at < binds->count; at++) {
        struct bind *here = &binds->list[at], *before = here - 1, home = *before;

        if (is_of_caller(here) && is_of_caller(before) &&
            depth(before->target) > depth(here->target)) {
            *before = *here;
            *here = home;
        }
    }
}

/* Whether a home or working directory of the host's goes before what the image has there. */
static int prevails(const struct bind *bind)
{
    if (bind->wish->kind == WISH_HOME && bind->owner == geteuid())
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

        if (taken != NULL && (path_within(target, taken) || path_within(taken, target)))
            return 0;
    }
    return 1;
}

/* The mount that `target` is in or on, of those already planned; NULL: it is the image. */
static const struct bind *holder(const struct binds *binds, size_t planned, const char *target)
{
    for (; planned > 0; planned--) {
        const struct bind *bind = &binds->list[planned - 1];

        if (bind->target != NULL && path_within(target, bind->target))
            return bind;
    }
    return NULL;
}

/* Why nothing may be mounted at `target`, where a wish ended up; NULL if it may. */
static const char *forbidden(const struct wish *wish, const char *target, const char *etc)
{
    enum volume_asker asker = wish->asker == BY_USER ? ASKED_BY_USER : ASKED_BY_SITE;
    char normal[PATH_MAX];

    if (path_within(etc, target))
        return "files of the container's own are in it";
    /* The image's /etc may be a link to another place. */
    if (path_within(target, etc)) {
        path_format(normal, "/etc%s", target + strlen(etc));
        return volume_forbidden(normal, asker);
    }
    /* What sites bring for modules stands where users may mount nothing. */
    return volume_forbidden(target, asker);
}

static _Noreturn void refuse(const struct binds *binds, const struct bind *bind, const char *why)
{
    fail(0, wish_origin(bind->wish, binds->plan), "cannot mount '%s' at '%s', which is '%s': %s",
         bind->path, bind->wanted, bind->target, why);
}

static void check_type(const struct binds *binds, const struct bind *bind)
{
    if (S_ISDIR(bind->type) && bind->inside != 0 && !S_ISDIR(bind->inside))
        refuse(binds, bind, "the image has a file there");
    if (!S_ISDIR(bind->type) && S_ISDIR(bind->inside))
        refuse(binds, bind, "the image has a directory there");
}

static void make_target(const struct bind *bind)
{
    if (S_ISDIR(bind->type)) {
        if (!S_ISDIR(bind->inside))
            skeleton_directory(bind->target);
    } else if (bind->inside == 0) {
        skeleton_mount_point(bind->target);
    }
}

/* What was asked for must be made, or the launch ends. */
static void plan_asked(const struct binds *binds, size_t at, const char *etc)
{
    const struct bind *bind = &binds->list[at];
    const char *why = forbidden(bind->wish, bind->target, etc);

    if (why != NULL)
        refuse(binds, bind, why);
    /* Nothing is ever made in a directory of the host's: there it must exist already. */
    if (holder(binds, at, bind->target) != NULL)
        return;
    check_type(binds, bind);
    make_target(bind);
}

static void plan_given(struct binds *binds, size_t at, const char *etc)
{
    struct bind *bind = &binds->list[at];
    int goes = is_free(binds, at, bind->target, etc) &&
               (bind->inside != 0 || !inside_is_mounted(bind->target));

    if (!is_of_caller(bind) && !bind->wish->optional && !goes)
        fail(0, NULL, "cannot put '%s' into the image, where it is '%s'", bind->path,
             bind->target);
    if (!goes || (is_of_caller(bind) && !prevails(bind))) {
        free(bind->target);
        bind->target = NULL;
        return;
    }
    make_target(bind);
}

/* Make the links by which the caller came to its present directory, where the image has nothing and
   no mount lies; not in what is the container's own. */
static void make_links(const struct binds *binds, const char *etc)
{
    const struct plan *plan = binds->plan;
    char resolved[PATH_MAX];

    for (size_t at = 0; at < plan->link_count; at++) {
        const struct link *link = &plan->links[at];

        if (inside_resolve(link->path, resolved) == 0 && !path_within(resolved, etc) &&
            volume_forbidden(resolved, ASKED_BY_USER) == NULL &&
            holder(binds, binds->count, resolved) == NULL)
            skeleton_new_link(resolved, link->text);
    }
}

void binds_plan(struct binds *binds, const char *etc)
{
    char resolved[PATH_MAX];

    for (size_t at = 0; at < binds->count; at++) {
        struct bind *bind = &binds->list[at];

        bind->inside = inside_resolve(bind->wanted, resolved);
        bind->target = must_copy(resolved);
    }
    sort(binds);
    for (size_t at = 0; at < binds->count; at++) {
        if (is_of_caller(&binds->list[at]) || binds->list[at].wish->kind == WISH_STANDARD)
            plan_given(binds, at, etc);
        else
            plan_asked(binds, at, etc);
    }
    make_links(binds, etc);
}

/* Where in the container the mount point that is open lies. */
static const char *place_of(int target, const char *root, char path[PATH_MAX])
{
    MUST(path_of(target, path, PATH_MAX), "cannot tell where a mount point lies");
    if (!path_within(path, root))
        fail(0, NULL, "the mount point '%s' is not in the container", path);
    return path + strlen(root);
}

static _Noreturn void lacks_place(const struct binds *binds, const struct bind *bind)
{
    int error = errno;
    const struct bind *around = holder(binds, (size_t)(bind - binds->list), bind->target);

    fail(error,
         around != NULL ? hint("'%s' of this node is seen at '%s', and nothing is made in it",
                               around->path, around->wanted)
                        : NULL,
         "cannot mount '%s' at '%s' in the container", bind->path, bind->wanted);
}

/* Open the mount point of `bind`, and look again: links of what is mounted already were not
   known before. */
static int open_target(const struct binds *binds, const struct bind *bind, int root,
                       const char *root_path, const char *etc)
{
    int target = inside_open(root, bind->target);
    char path[PATH_MAX];
    const char *why;

    if (target < 0)
        lacks_place(binds, bind);
    why = bind->wish->kind == WISH_STANDARD || is_of_caller(bind)
              ? NULL
              : forbidden(bind->wish, place_of(target, root_path, path), etc);
    if (why != NULL)
        refuse(binds, bind, why);
    return target;
}

static void mount_cache(const struct bind *bind, uid_t uid, int target)
{
    char place[64], options[128], prepared[PATH_MAX];

    snprintf(place, sizeof place, "/proc/self/fd/%d", target);
    if (prepared_find_cache(prepared, uid, bind->wish->target, bind->wish->size)) {
        MUST(mount(prepared, place, NULL, MS_BIND, NULL), "cannot use the mount '%s'", prepared);
        return;
    }
    snprintf(options, sizeof options, "size=%" PRIu64 ",mode=0755,uid=%u,gid=%u",
             bind->wish->size, geteuid(), getegid());
    MUST(mount("perNodeCache", place, "tmpfs", MS_NOSUID | MS_NODEV, options),
         "cannot mount a perNodeCache at '%s'", bind->wanted);
}

static void attach(const struct binds *binds, const struct bind *bind, int root,
                   const char *root_path, const char *etc)
{
    int target = open_target(binds, bind, root, root_path, etc);

    if (bind->wish->kind == WISH_CACHE) {
        mount_cache(bind, binds->plan->uid, target);
        if (bind->wish->attributes & MS_RDONLY) {
            close(target);
            target = open_target(binds, bind, root, root_path, etc);
            tree_restrict(target, MS_RDONLY);
        }
    } else {
        MUST(tree_attach(bind->tree, bind->source, target), "cannot mount '%s' at '%s'",
             bind->path, bind->wanted);
        if (bind->tree >= 0) {
            close(bind->tree);
        } else {
            close(target);
            target = open_target(binds, bind, root, root_path, etc);
            tree_restrict(target, bind->wish->attributes);
        }
    }
    close(target);
}

static int open_root(const char *directory, char path[PATH_MAX])
{
    int root = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);

    MUST(root, "cannot open the new root");
    MUST(path_of(root, path, PATH_MAX), "cannot open the new root");
    return root;
}

void binds_mount_early(struct binds *binds, const char *etc, enum asker asker)
{
    char root_path[PATH_MAX];
    int root = open_root(SKELETON_DIR, root_path);

    for (size_t at = 0; at < binds->count; at++) {
        struct bind *bind = &binds->list[at];
        const struct bind *around;

        if (bind->wish->asker != asker || bind->target == NULL)
            continue;
        around = holder(binds, at, bind->target);
        if (around != NULL && !around->is_early)
            continue;
        if (around == NULL && S_ISDIR(bind->type))
            skeleton_directory(bind->target);
        else if (around == NULL)
            skeleton_mount_point(bind->target);
        attach(binds, bind, root, root_path, etc);
        bind->is_early = 1;
    }
    close(root);
}

void binds_mount(const struct binds *binds, const char *etc)
{
    char root_path[PATH_MAX];
    int root = open_root(ROOT_DIR, root_path);

    for (size_t at = 0; at < binds->count; at++)
        if (binds->list[at].target != NULL && !binds->list[at].is_early)
            attach(binds, &binds->list[at], root, root_path, etc);
    close(root);
}
