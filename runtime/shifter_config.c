#include "shifter_config.h"

#include "fail.h"
#include "files.h"
#include "inside.h"
#include "json.h"
#include "skeleton.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#define NAME "shifterConfig.json"

static FILE *open_text(char **text, size_t *length)
{
    FILE *out = open_memstream(text, length);

    if (out == NULL)
        fail(errno, NULL, "cannot go on");
    return out;
}

static void close_text(FILE *out)
{
    if (fclose(out) != 0)
        fail(errno, NULL, "cannot go on");
}

/* One volume, in the words in which Shifter compares them. */
static char *volume_text(const struct volume *volume)
{
    char *text = NULL;
    size_t length;
    FILE *out = open_text(&text, &length);

    fprintf(out, "%s:%s", volume->from, volume->to);
    if (volume->read_only)
        fputs(":ro", out);
    if (volume->cache)
        fprintf(out, ":perNodeCache=size=%" PRIu64 ",bs=1048576,method=loop,fstype=%s",
                volume->cache_size, volume->cache_type != NULL ? volume->cache_type : "xfs");
    close_text(out);
    return text;
}

static int compare(const void *one, const void *other)
{
    return strcmp(*(char *const *)one, *(char *const *)other);
}

/* The user's volumes in alphabetical order, with `;` between. */
static char *signature(const struct plan *plan)
{
    char **texts = must_allocate(plan->count + 1, sizeof *texts), *all = NULL;
    size_t count = 0, length;
    FILE *out = open_text(&all, &length);

    for (size_t at = 0; at < plan->count; at++)
        if (plan->wishes[at].volume != NULL)
            texts[count++] = volume_text(plan->wishes[at].volume);
    qsort(texts, count, sizeof *texts, compare);
    for (size_t at = 0; at < count; at++) {
        fprintf(out, "%s%s", at > 0 ? ";" : "", texts[at]);
        free(texts[at]);
    }
    free(texts);
    close_text(out);
    return all;
}

static void write_member(FILE *out, const char *before, const char *name, const char *text)
{
    fprintf(out, "%s\"%s\":", before, name);
    json_quote(out, text);
}

void shifter_config_write(const struct plan *plan, const char *id, const char *user)
{
    char *text = NULL, *modules = NULL, *volumes = signature(plan), place[PATH_MAX];
    size_t length;
    FILE *out = open_text(&modules, &length);

    for (const struct module **at = plan->modules; *at != NULL; at++)
        fprintf(out, "%s,", (*at)->name);
    close_text(out);
    out = open_text(&text, &length);
    write_member(out, "{", "identifier", id);
    write_member(out, ",", "user", user);
    write_member(out, ",", "volMap", volumes);
    write_member(out, ",", "modules", modules);
    fputs("}\n", out);
    close_text(out);
    inside_resolve("/var", place);
    /* What a hook has mounted there is the node's. */
    if (!inside_is_mounted(place)) {
        skeleton_directory(place);
        skeleton_file(path_join(place, NAME), text, length);
    }
    free(text);
    free(modules);
    free(volumes);
}

void shifter_config_protect(void)
{
    char place[PATH_MAX], from[PATH_MAX], to[PATH_MAX];

    inside_resolve("/var", place);
    if (inside_is_mounted(place))
        return;
    path_format(from, SKELETON_DIR "%s/" NAME, place);
    path_format(to, ROOT_DIR "%s/" NAME, place);
    MUST(mount(from, to, NULL, MS_BIND, NULL), "cannot bind '%s'", to);
    MUST(mount(NULL, to, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL),
         "cannot make '%s' read-only", to);
}
