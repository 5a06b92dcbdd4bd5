#include "dry_run.h"

#include "fail.h"
#include "files.h"
#include "json.h"

#include <string.h>
#include <sys/mount.h>

static void write_image(struct json *json, const struct dry_run *run)
{
    char path[PATH_MAX];

    path_format(path, "%s/images/%.2s/%s.squashfs", run->plan->store, run->record->id,
                run->record->id);
    json_open(json, "image", '{');
    json_text(json, "request", run->job->request);
    json_text(json, "id", run->record->id);
    json_text(json, "path", path);
    json_close(json, '}');
}

static const char *asker(const struct wish *wish, char text[256])
{
    static const char *const names[] = {
        [BY_STANDARD] = "standard", [BY_SITE] = "site", [BY_MODULE] = "module", [BY_USER] = "user"};

    if (wish->asker != BY_MODULE)
        return names[wish->asker];
    snprintf(text, 256, "module %s", wish->module);
    return text;
}

static void write_flags(struct json *json, const struct wish *wish)
{
    static const struct {
        unsigned long attribute;
        const char *name;
    } flags[] = {
        {MS_RDONLY, "ro"},     {MS_NOSUID, "nosuid"}, {MS_NODEV, "nodev"},
        {MS_SLAVE, "slave"},   {MS_PRIVATE, "private"},
    };

    json_open(json, "flags", '[');
    for (size_t at = 0; at < sizeof flags / sizeof flags[0]; at++)
        if (wish->attributes & flags[at].attribute)
            json_text(json, NULL, flags[at].name);
    json_close(json, ']');
}

static void write_mounts(struct json *json, const struct plan *plan)
{
    static const char *const kinds[] = {
        [WISH_STANDARD] = "standard", [WISH_HOME] = "home",     [WISH_CWD] = "working directory",
        [WISH_BIND] = "bind",         [WISH_SPREAD] = "spread", [WISH_CACHE] = "perNodeCache"};
    char text[256];

    json_open(json, "mounts", '[');
    for (size_t at = 0; at < plan->count; at++) {
        const struct wish *wish = &plan->wishes[at];

        json_open(json, NULL, '{');
        json_text(json, "kind", kinds[wish->kind]);
        json_text(json, "source", wish->kind == WISH_CACHE ? NULL : wish->source);
        json_text(json, "target", wish->target);
        write_flags(json, wish);
        json_text(json, "by", asker(wish, text));
        if (wish->line != 0)
            json_number(json, "line", wish->line);
        if (wish->size != 0)
            json_number(json, "size", wish->size);
        json_close(json, '}');
    }
    json_close(json, ']');
}

/* In the order in which they run. */
static void write_hooks(struct json *json, const struct plan *plan)
{
    json_open(json, "hooks", '[');
    if (plan->config->pre_hook != NULL)
        json_text(json, NULL, plan->config->pre_hook);
    if (plan->config->post_hook != NULL)
        json_text(json, NULL, plan->config->post_hook);
    for (const struct module **at = plan->modules; *at != NULL; at++)
        if ((*at)->roothook != NULL)
            json_text(json, NULL, (*at)->roothook);
    json_close(json, ']');
}

static void write_environment(struct json *json, const struct environment *environment)
{
    json_open(json, "environment", '[');
    for (size_t at = 0; at < environment->count; at++) {
        char *name = must_copy(environment->list[at]);
        size_t length = strcspn(name, "=");

        json_open(json, NULL, '{');
        name[length] = '\0';
        json_text(json, "name", name);
        json_text(json, "value", environment->list[at][length] == '='
                                     ? environment->list[at] + length + 1
                                     : NULL);
        json_text(json, "by", environment->by[at]);
        json_close(json, '}');
    }
    json_close(json, ']');
}

static void write_command(struct json *json, char *const *command)
{
    json_open(json, "command", '[');
    for (; *command != NULL; command++)
        json_text(json, NULL, *command);
    json_close(json, ']');
}

static const char *workdir(const struct dry_run *run)
{
    if (!run->job->workdir_asked)
        return run->plan->cwd;
    return run->job->workdir != NULL ? run->job->workdir : run->record->workdir;
}

void dry_run(const struct dry_run *run)
{
    struct json json = {stdout, 0, 1};
    const struct plan *plan = run->plan;

    json_open(&json, NULL, '{');
    write_image(&json, run);
    json_text(&json, "store", plan->store);
    json_text(&json, "config", plan->config->path);
    json_open(&json, "modules", '[');
    for (const struct module **at = plan->modules; *at != NULL; at++)
        json_text(&json, NULL, (*at)->name);
    json_close(&json, ']');
    write_hooks(&json, plan);
    write_mounts(&json, plan);
    json_number(&json, "writable", plan->writable);
    write_environment(&json, run->environment);
    write_command(&json, run->command);
    json_text(&json, "workdir", workdir(run));
    json_close(&json, '}');
    if (fflush(stdout) != 0 || ferror(stdout))
        fail(errno, NULL, "cannot write to standard output");
}
