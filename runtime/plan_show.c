#include "plan.h"

#include "fail.h"
#include "files.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mount.h>

/* Each text with its length before it, so that none can look like two. */
static void write_text(FILE *out, const char *text)
{
    fprintf(out, "%zu:%s,", strlen(text), text);
}

static void write_etc(const struct config *config, FILE *out)
{
    write_text(out, config->etc_path != NULL ? config->etc_path : "/etc");
    fprintf(out, "%d %" PRIu64 ",", config->populate_etc, config->group_count);
    for (size_t at = 0; at < config->users.count; at++)
        write_text(out, config->users.list[at]);
}

void plan_key(const struct plan *plan, FILE *out)
{
    for (size_t at = 0; at < plan->count; at++) {
        const struct wish *wish = &plan->wishes[at];

        fprintf(out, "%d %lu %" PRIu64 " %d,", wish->kind, wish->attributes, wish->size,
                wish->optional);
        write_text(out, wish->kind == WISH_CACHE ? "" : wish->source);
        write_text(out, wish->target);
        /* A directory whose entries are shown one by one is another one if they change. */
        if (wish->kind != WISH_CACHE)
            file_id_write(out, &wish->id, wish->kind == WISH_SPREAD);
    }
    for (size_t at = 0; at < plan->link_count; at++) {
        write_text(out, plan->links[at].path);
        write_text(out, plan->links[at].text);
    }
    fprintf(out, "writable %u,", plan->writable);
    write_etc(plan->config, out);
}

const char *wish_origin(const struct wish *wish, const struct plan *plan)
{
    switch (wish->asker) {
    case BY_SITE:
    case BY_MODULE:
        if (wish->line != 0)
            return hint("asked for by '%s' line %u", plan->config->path, wish->line);
        return wish->asker == BY_SITE
                   ? hint("asked for by '%s'", plan->config->path)
                   : hint("asked for by '%s' for the module '%s'", plan->config->path,
                          wish->module);
    case BY_USER:
        return "asked for by --volume or SHIFTER_VOLUME";
    case BY_STANDARD:
        break;
    }
    return "in every container";
}

static const char *flags(const struct wish *wish)
{
    return wish->attributes & MS_RDONLY ? " (read-only)" : "";
}

static void tell_hooks(const struct plan *plan)
{
    const struct config *config = plan->config;

    if (config->pre_hook != NULL)
        warn("hook: '%s', before siteFs is mounted", config->pre_hook);
    if (config->post_hook != NULL)
        warn("hook: '%s', after siteFs is mounted", config->post_hook);
    for (const struct module **at = plan->modules; *at != NULL; at++)
        if ((*at)->roothook != NULL)
            warn("hook: '%s', of the module '%s'", (*at)->roothook, (*at)->name);
}

void plan_tell(const struct plan *plan)
{
    const struct config *config = plan->config;

    warn("store: '%s'", plan->store);
    warn("configuration: %s", config->path != NULL ? config->path : "none");
    for (const struct module **at = plan->modules; *at != NULL; at++)
        warn("module: '%s'", (*at)->name);
    tell_hooks(plan);
    for (size_t at = 0; at < plan->count; at++) {
        const struct wish *wish = &plan->wishes[at];

        if (wish->kind == WISH_CACHE)
            warn("mount: %" PRIu64 " bytes of memory at '%s', %s", wish->size, wish->target,
                 wish_origin(wish, plan));
        else
            warn("mount: '%s' at '%s'%s, %s", wish->source, wish->target, flags(wish),
                 wish_origin(wish, plan));
    }
    if (plan->writable != 0)
        warn("writable: in %u percent of memory", plan->writable);
}
