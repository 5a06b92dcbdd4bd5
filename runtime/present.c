#include "present.h"

#include "ambient.h"
#include "fail.h"
#include "files.h"
#include "places.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINKS_MOST = 40 }; /* as the kernel */

/* The mount that shows `path` in the container; NULL: it is the image's.  Of mounts over each other
   the last counts. */
static const struct wish *holder(const struct plan *plan, const char *path)
{
    for (size_t at = plan->count; at > 0; at--) {
        const struct wish *wish = &plan->wishes[at - 1];

        /* Another user's home does not go over what the image has there. */
        if (wish->kind == WISH_HOME && !plan->home_is_own)
            continue;
        if (path_within(path, wish->target))
            return wish;
    }
    return NULL;
}

/* Whether a mount point lies beneath `path`, which then is a directory and no link. */
static int holds_mount(const struct plan *plan, const char *path)
{
    for (size_t at = 0; at < plan->count; at++)
        if (path_within(plan->wishes[at].target, path))
            return 1;
    return 0;
}

/* What `place` of the container is called on the node, if a mount or, for want of one, the same
   name shows it. */
static void name_on_node(const struct plan *plan, const char *place, char path[PATH_MAX])
{
    const struct wish *wish = holder(plan, place);

    if (wish == NULL)
        path_format(path, "%s", place);
    else
        path_format(path, "%s%s", wish->source, place + strlen(wish->target));
}

/* A way through the container, as its kernel will go it. */
struct way {
    char place[PATH_MAX]; /* as far as it was gone; without links, empty for the root */
    char rest[PATH_MAX];
    int links;
};

static void keep_link(struct plan *plan, const char *path, const char *text)
{
    plan->links = must_grow(plan->links, plan->link_count, &plan->link_room, sizeof *plan->links);
    plan->links[plan->link_count++] = (struct link){must_copy(path), must_copy(text)};
}

/* The text of the link at `place`; 0 if it is none, or a mount point, or the way to one. */
static int read_link(const struct plan *plan, const char *place, char text[PATH_MAX])
{
    char path[PATH_MAX];
    ssize_t length;

    if (holds_mount(plan, place))
        return 0;
    name_on_node(plan, place, path);
    length = readlink(path, text, PATH_MAX - 1);
    if (length <= 0)
        return 0;
    text[length] = '\0';
    return 1;
}

static void go_up(char place[PATH_MAX])
{
    char *slash = strrchr(place, '/');

    if (slash != NULL)
        *slash = '\0';
}

/* Take the next component off the rest; 0 at the end. */
static int take_component(struct way *way, char component[PATH_MAX])
{
    char *start = way->rest + strspn(way->rest, "/");
    size_t length = strcspn(start, "/");

    memcpy(component, start, length);
    component[length] = '\0';
    memmove(way->rest, start + length, strlen(start + length) + 1);
    return length > 0;
}

/* Put the text of a link before the rest; -1 if the way is too long. */
static int follow(struct way *way, const char *text)
{
    size_t length = strlen(text), rest = strlen(way->rest);

    if (++way->links > LINKS_MOST || length + 1 + rest >= PATH_MAX)
        return -1;
    memmove(way->rest + length + 1, way->rest, rest + 1);
    memcpy(way->rest, text, length);
    way->rest[length] = '/';
    if (text[0] == '/')
        way->place[0] = '\0';
    return 0;
}

static int step(const struct plan *plan, struct way *way, struct plan *keeper,
                const char *component)
{
    char next[PATH_MAX], text[PATH_MAX];

    if (strcmp(component, ".") == 0)
        return 0;
    if (strcmp(component, "..") == 0) {
        go_up(way->place);
        return 0;
    }
    if (strlen(way->place) + 1 + strlen(component) >= PATH_MAX)
        return -1;
    path_format(next, "%s/%s", way->place, component);
    if (!read_link(plan, next, text)) {
        path_format(way->place, "%s", next);
        return 0;
    }
    if (keeper != NULL && holder(plan, next) == NULL)
        keep_link(keeper, next, text);
    return follow(way, text);
}

/* Go the way of `path`; links that no mount shows are kept in `keeper`, if that is not NULL.  -1 if
   it leads nowhere. */
static int go(const struct plan *plan, struct way *way, const char *path, struct plan *keeper)
{
    char component[PATH_MAX];

    way->place[0] = '\0';
    way->links = 0;
    path_format(way->rest, "%s", path);
    while (take_component(way, component))
        if (step(plan, way, keeper, component) < 0)
            return -1;
    return 0;
}

/* Whether `place`, a way without links, leads to the file `id`. */
static int leads_to(const struct plan *plan, const char *place, const struct file_id *id)
{
    const struct wish *wish = holder(plan, place);
    char path[PATH_MAX];
    struct file_id found;

    if (wish != NULL && wish->kind == WISH_CACHE)
        return 0;
    name_on_node(plan, place, path);
    file_id_read(&found, AT_FDCWD, path);
    return found.error == 0 && file_id_is_same(&found, id);
}

static int is_shown(const struct plan *plan, const char *path, struct way *way)
{
    struct file_id id;

    if (holder(plan, path) == NULL)
        return 0;
    file_id_read(&id, AT_FDCWD, path);
    return go(plan, way, path, NULL) == 0 && holder(plan, way->place) != NULL &&
           leads_to(plan, way->place, &id);
}

const char *present_target(const struct plan *plan, const char *path)
{
    struct way way = {.place = ""};

    if (is_shown(plan, path, &way))
        return NULL;
    /* A link in a mount leads out of it: what it leads to is mounted there. */
    return way.place[0] != '\0' && holder(plan, way.place) == NULL ? must_copy(way.place) : path;
}

/* Whether a mount shows the file whose path has no links, under that path. */
static int is_shown_without_links(const struct plan *plan, const char *path)
{
    const struct wish *wish = holder(plan, path);

    return wish != NULL && wish->kind != WISH_CACHE &&
           (strcmp(wish->source, wish->target) == 0 || leads_to(plan, path, &plan->here));
}

int present_choose(struct plan *plan)
{
    const char *pwd = ambient("PWD"), *words = NULL;
    size_t before = plan->link_count;
    struct way way;
    int shown;

    file_id_read(&plan->here, AT_FDCWD, ".");
    /* The kernel's own name for it has no links. */
    shown = is_shown_without_links(plan, plan->cwd);
    if (pwd != NULL && strcmp(pwd, plan->cwd) != 0)
        words = place_in_callers_words(plan->cwd);
    if (words == NULL || strcmp(words, plan->cwd) == 0)
        return shown;
    if (go(plan, &way, words, plan) < 0 || !leads_to(plan, way.place, &plan->here)) {
        plan->link_count = before;
        return shown;
    }
    /* Where only the caller's words lead to it, as to a siteFs of a short name, they are taken. */
    if (!shown && holder(plan, way.place) != NULL) {
        plan->cwd = words;
        return 1;
    }
    return shown;
}

int present_is_covered(const struct plan *plan, const char *path)
{
    const struct wish *wish = holder(plan, path);

    return wish != NULL && wish->kind != WISH_CWD;
}
