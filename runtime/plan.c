#include "plan.h"

#include "fail.h"
#include "files.h"
#include "places.h"
#include "present.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#define UDI_DIRECTORY "/opt/udiImage"
#define UDI_MODULES UDI_DIRECTORY "/modules"

/* In every container, where the host has them. */
static const struct {
    const char *path;
    unsigned long attributes;
    int optional; /* in some images it is a link to one of the others */
} standard[] = {
    {"/proc", 0, 0},
    {"/sys", 0, 0},
    {"/dev", MS_NOSUID, 0},
    {"/tmp", MS_NOSUID | MS_NODEV, 0},
    {"/var/tmp", MS_NOSUID | MS_NODEV, 1},
};

static struct wish *add(struct plan *plan, enum wish_kind kind, const char *source,
                        const char *target)
{
    struct wish *wish;

    plan->wishes = must_grow(plan->wishes, plan->count, &plan->room, sizeof *plan->wishes);
    wish = &plan->wishes[plan->count++];
    *wish = (struct wish){.kind = kind,
                          .source = source,
                          .target = target,
                          .attributes = MS_NOSUID | MS_NODEV};
    return wish;
}

/* Whether what the node mounts later below the source arrives.  It would not be read-only. */
static unsigned long propagation(const struct config *config, const struct volume *volume,
                                 enum asker asker)
{
    if (asker == BY_USER)
        return volume->read_only ? MS_PRIVATE : 0;
    if (volume->slave || volume->private)
        return volume->slave ? MS_SLAVE : MS_PRIVATE;
    return config->slave ? MS_SLAVE : MS_PRIVATE;
}

static void add_volumes(struct plan *plan, const struct volumes *volumes, enum asker asker,
                        const char *module)
{
    for (size_t at = 0; at < volumes->count; at++) {
        const struct volume *volume = &volumes->list[at];
        struct wish *wish = add(plan, volume->cache ? WISH_CACHE : WISH_BIND, volume->from,
                                volume->to);

        wish->asker = asker;
        wish->module = module;
        wish->line = volume->line;
        wish->optional = volume->optional;
        wish->size = volume->cache_size;
        wish->attributes |= volume->read_only ? MS_RDONLY : 0;
        wish->attributes |= propagation(plan->config, volume, asker);
    }
}

/* The site's own directory, and below it what modules bring. */
static void add_udi(struct plan *plan)
{
    int spread = 0;

    for (const struct module **at = plan->modules; *at != NULL; at++)
        spread |= (*at)->copy_path != NULL;
    if (plan->config->opt_udi_image != NULL) {
        struct wish *wish = add(plan, spread ? WISH_SPREAD : WISH_BIND,
                                plan->config->opt_udi_image, UDI_DIRECTORY);

        wish->asker = BY_SITE;
        wish->attributes |= MS_RDONLY;
    }
    for (const struct module **at = plan->modules; *at != NULL; at++) {
        struct wish *wish;

        if ((*at)->copy_path == NULL)
            continue;
        wish = add(plan, WISH_BIND, (*at)->copy_path, path_join(UDI_MODULES, (*at)->name));
        wish->asker = BY_MODULE;
        wish->module = (*at)->name;
        wish->attributes |= MS_RDONLY;
    }
}

/* What a user calls `path` he knows from the container: where the site shows a directory under
   another name there, it is that one. */
static const char *as_the_site_has_it(const struct plan *plan, const char *path)
{
    for (size_t at = plan->count; at > 0; at--) {
        const struct wish *wish = &plan->wishes[at - 1];

        if (wish->kind == WISH_BIND && wish->asker != BY_USER && path_within(path, wish->target))
            return path_join(wish->source, path + strlen(wish->target));
    }
    return path;
}

/* A directory before what lies in it, and in one order however the caller wrote them, so that
   launches with the same volumes share a container. */
static int compare_targets(const void *one, const void *other)
{
    return strcmp(((const struct volume *)one)->to, ((const struct volume *)other)->to);
}

static void check_duplicates(const struct volumes *volumes)
{
    for (size_t at = 0; at < volumes->count; at++)
        for (size_t before = 0; before < at; before++)
            if (strcmp(volumes->list[at].to, volumes->list[before].to) == 0)
                fail(0, "name each place in the container once",
                     "two volumes for '%s': '%s' and '%s'", volumes->list[at].to,
                     volumes->list[before].from, volumes->list[at].from);
}

static void add_asked(struct plan *plan, const struct job *job)
{
    struct volumes volumes = {NULL, 0, 0};
    struct complaint why = {0, "", ""};
    size_t first = plan->count;

    for (size_t at = 0; at < job->volumes.count; at++)
        if (volumes_parse(&volumes, must_copy(job->volumes.list[at]), ASKED_BY_USER, &why) < 0)
            fail_complaining(&why, NULL);
    for (size_t at = 0; at < volumes.count; at++)
        if (volume_check_cache(&volumes.list[at], &plan->config->cache, &why) < 0)
            fail_complaining(&why, NULL);
    check_duplicates(&volumes);
    if (volumes.count > 1)
        qsort(volumes.list, volumes.count, sizeof *volumes.list, compare_targets);
    add_volumes(plan, &volumes, BY_USER, NULL);
    for (size_t at = 0; at < volumes.count; at++) {
        struct wish *wish = &plan->wishes[first + at];

        wish->volume = &volumes.list[at];
        wish->source = as_the_site_has_it(plan, wish->source);
    }
}

/* Whether the site mounts something in `path` that is not there on the node: it could not, if
   `path` itself were mounted. */
static int is_torn(const struct plan *plan, const char *path)
{
    for (size_t at = 0; at < plan->count; at++) {
        const struct wish *wish = &plan->wishes[at];

        if ((wish->asker == BY_SITE || wish->asker == BY_MODULE) &&
            path_within(wish->target, path) && access(wish->target, F_OK) < 0)
            return 1;
    }
    return 0;
}

static void add_home(struct plan *plan)
{
    const char *target = plan->home != NULL ? present_target(plan, plan->home) : NULL;

    if (target != NULL)
        add(plan, WISH_HOME, plan->home, target);
}

static void add_cwd(struct plan *plan)
{
    if (plan->cwd == NULL || strcmp(plan->cwd, "/") == 0 || present_choose(plan))
        return;
    if (!is_torn(plan, plan->cwd))
        add(plan, WISH_CWD, plan->cwd, plan->cwd);
}

/* Home and present directory stand before all that was asked for: that may go over them, or into
   them.  Where another mount shows them they are none of their own, so that ranks in different
   directories of one filesystem can share a container. */
static void add_callers(struct plan *plan, size_t before)
{
    size_t own = plan->count;

    add_home(plan);
    add_cwd(plan);
    for (; own < plan->count; own++, before++) {
        struct wish wish = plan->wishes[own];

        memmove(&plan->wishes[before + 1], &plan->wishes[before],
                (own - before) * sizeof wish);
        plan->wishes[before] = wish;
    }
}

static void choose_modules(struct plan *plan, const struct job *job)
{
    const char *names = job->modules != NULL ? job->modules : plan->config->default_modules;
    struct complaint why = {0, "", ""};

    if (modules_choose(&plan->config->modules, names != NULL ? must_copy(names) : NULL,
                       &plan->modules, &why) < 0)
        fail_complaining(&why, NULL);
}

void plan_make(struct plan *plan, const struct job *job, const struct config *config)
{
    size_t standards;

    memset(plan, 0, sizeof *plan);
    plan->uid = geteuid();
    plan->config = config;
    plan->writable = job->writable;
    choose_modules(plan, job);
    place_of_store(job, config, plan->store);
    plan->home = place_of_home(&plan->home_is_own);
    plan->cwd = place_of_caller(plan->cwd_text, &plan->cwd_error);
    for (size_t at = 0; at < sizeof standard / sizeof standard[0]; at++) {
        struct wish *wish = add(plan, WISH_STANDARD, standard[at].path, standard[at].path);

        wish->attributes = standard[at].attributes;
        wish->optional = standard[at].optional;
    }
    standards = plan->count;
    add_volumes(plan, &config->fs, BY_SITE, NULL);
    for (const struct module **at = plan->modules; *at != NULL; at++)
        add_volumes(plan, &(*at)->fs, BY_MODULE, (*at)->name);
    add_udi(plan);
    add_asked(plan, job);
    add_callers(plan, standards);
}
