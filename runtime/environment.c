#include "environment.h"

#include "fail.h"
#include "files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* Variables of the node's linker and C library: they lead programs to files of the node that in
   the container are others, or none.  Shifter's own launcher is set-uid, and the linker takes the
   same ones from it. */
static const char *const kept_out[] = {
    "GCONV_PATH",  "GETCONF_DIR", "GLIBC_TUNABLES", "HOSTALIASES",      "LOCALDOMAIN",
    "LOCPATH",     "MALLOC_TRACE", "NIS_PATH",      "NLSPATH",          "RESOLV_HOST_CONF",
    "RES_OPTIONS", "TMPDIR",       "TZDIR",
};

static size_t name_length(const char *entry)
{
    return strcspn(entry, "=");
}

static int has_name(const char *entry, const char *name, size_t length)
{
    return entry != NULL && strncmp(entry, name, length) == 0 && entry[length] == '=';
}

/* The slot of what `entry` names, or the free one where it would be. */
static uint32_t *slot_of(const struct environment *environment, const char *entry)
{
    size_t length = name_length(entry), mask = environment->slot_count - 1;
    uint64_t hash = bytes_hash(entry, length);

    for (size_t at = (size_t)(hash ^ hash >> 32) & mask;; at = (at + 1) & mask) {
        uint32_t *slot = &environment->slots[at];

        if (*slot == 0 || has_name(environment->list[*slot - 1], entry, length))
            return slot;
    }
}

static char **find(const struct environment *environment, const char *entry)
{
    uint32_t slot = *slot_of(environment, entry);

    return slot > 0 ? &environment->list[slot - 1] : NULL;
}

static int is_variable(const char *entry)
{
    return entry != NULL && entry[0] != '=' && strchr(entry, '=') != NULL;
}

/* Make room for `room` entries, a power of two.  Half of the slots stay free, so that a search for
   what is not there ends soon. */
static void reserve(struct environment *environment, size_t room)
{
    environment->room = room;
    environment->list = reallocarray(environment->list, room, sizeof(char *));
    environment->by = reallocarray(environment->by, room, sizeof(char *));
    if (environment->list == NULL || environment->by == NULL)
        fail(ENOMEM, NULL, "cannot go on");
    free(environment->slots);
    environment->slot_count = 2 * room;
    environment->slots = must_allocate(environment->slot_count, sizeof *environment->slots);
    for (size_t at = 0; at < environment->count; at++)
        if (is_variable(environment->list[at]))
            *slot_of(environment, environment->list[at]) = (uint32_t)at + 1;
}

static void append(struct environment *environment, const char *entry, const char *by)
{
    environment->list[environment->count] = (char *)entry;
    environment->by[environment->count++] = by;
    environment->list[environment->count] = NULL;
}

static void add(struct environment *environment, const char *entry, const char *by)
{
    if (environment->count + 1 >= environment->room)
        reserve(environment, 2 * environment->room);
    append(environment, entry, by);
    *slot_of(environment, entry) = (uint32_t)environment->count;
}

/* What is no NAME=value cannot be set. */
static void set(struct environment *environment, const char *entry, const char *by)
{
    char **place;

    if (!is_variable(entry))
        return;
    place = find(environment, entry);
    if (place == NULL) {
        add(environment, entry, by);
        return;
    }
    *place = (char *)entry;
    environment->by[place - environment->list] = by;
}

/* Its place stays, empty, until all is done, for slots count places. */
static void unset(struct environment *environment, const char *name)
{
    char **place = find(environment, name);

    if (place != NULL)
        *place = NULL;
}

static void close_gaps(struct environment *environment)
{
    size_t to = 0;

    for (size_t at = 0; at < environment->count; at++) {
        if (environment->list[at] == NULL)
            continue;
        environment->list[to] = environment->list[at];
        environment->by[to++] = environment->by[at];
    }
    environment->count = to;
    environment->list[to] = NULL;
}

/* Put the value of `entry` before or behind what is there, with a colon between. */
static void join(struct environment *environment, const char *entry, int behind, const char *by)
{
    char **place = find(environment, entry), *both = NULL;
    size_t name = name_length(entry);
    const char *value = entry + name + 1, *old = place != NULL ? *place + name + 1 : "";

    if (old[0] == '\0') {
        set(environment, entry, by);
        return;
    }
    if (asprintf(&both, "%.*s=%s:%s", (int)name, entry, behind ? old : value,
                 behind ? value : old) < 0)
        fail(ENOMEM, NULL, "cannot go on");
    set(environment, both, by);
}

static void set_all(struct environment *environment, const struct words *words, const char *by)
{
    for (size_t at = 0; at < words->count; at++)
        set(environment, words->list[at], by);
}

static void edit(struct environment *environment, const struct edits *edits, const char *by)
{
    set_all(environment, &edits->set, by);
    for (size_t at = 0; at < edits->append.count; at++)
        join(environment, edits->append.list[at], 1, by);
    for (size_t at = 0; at < edits->prepend.count; at++)
        join(environment, edits->prepend.list[at], 0, by);
    for (size_t at = 0; at < edits->unset.count; at++)
        unset(environment, edits->unset.list[at]);
}

static int is_kept_out(const char *entry)
{
    size_t length;

    if (strncmp(entry, "LD_", 3) == 0)
        return 1;
    for (size_t at = 0; at < sizeof kept_out / sizeof kept_out[0]; at++) {
        if (kept_out[at][0] != entry[0])
            continue;
        length = strlen(kept_out[at]);
        if (strncmp(kept_out[at], entry, length) == 0 && strchr("=", entry[length]) != NULL)
            return 1;
    }
    return 0;
}

/* The caller's.  Of a name that stands twice the first counts, as for getenv(3): programs differ in
   which they take, and what is set or unset later is to hold for all. */
static void pass_on(struct environment *environment, char *const *caller)
{
    for (; *caller != NULL; caller++) {
        uint32_t *slot;

        if (is_kept_out(*caller))
            continue;
        slot = is_variable(*caller) ? slot_of(environment, *caller) : NULL;
        if (slot != NULL && *slot != 0)
            continue;
        append(environment, *caller, "caller");
        if (slot != NULL)
            *slot = (uint32_t)environment->count;
    }
}

/* So many that hardly any launch needs more. */
static size_t room_for(char *const *caller)
{
    size_t count = 128, room = 256;

    for (; *caller != NULL; caller++)
        count++;
    while (room < count)
        room *= 2;
    return room;
}

static const char *joined(const char *first, char between, const char *second)
{
    size_t size = strlen(first) + strlen(second) + 2;
    char *text = must_allocate(1, size);

    snprintf(text, size, "%s%c%s", first, between, second);
    return text;
}

static void set_image(struct environment *environment, const struct job *job,
                      const struct record *record)
{
    set(environment, joined("SHIFTER_IMAGEREQUEST", '=', job->request), "shifter");
    set(environment, joined("SHIFTER_IMAGE", '=', record->id), "shifter");
    for (size_t at = 0; at < record->env.count; at++)
        /* The caller's home is bound in; the image's is somebody else's. */
        if (strncmp(record->env.list[at], "HOME=", strlen("HOME=")) != 0)
            set(environment, record->env.list[at], "image");
}

/* A name alone is set as it is with the caller, if it is there. */
static void set_options(struct environment *environment, const struct words *options)
{
    for (size_t at = 0; at < options->count; at++) {
        const char *entry = options->list[at], *value = NULL;

        if (strchr(entry, '=') == NULL) {
            value = getenv(entry);
            if (value == NULL)
                continue;
            entry = joined(entry, '=', value);
        }
        set(environment, entry, "--env");
    }
}

void environment_build(struct environment *environment, const struct environment_sources *from)
{
    memset(environment, 0, sizeof *environment);
    reserve(environment, room_for(from->caller));
    if (!from->job->clear_env)
        pass_on(environment, from->caller);
    set_image(environment, from->job, from->record);
    set_all(environment, from->files, "--env-file");
    set_options(environment, &from->job->env);
    for (const struct module *const *at = from->modules; *at != NULL; at++)
        edit(environment, &(*at)->env, joined("module", ' ', (*at)->name));
    edit(environment, &from->config->env, "site");
    if (find(environment, DEFAULT_PATH) == NULL)
        set(environment, DEFAULT_PATH, "shifter");
    close_gaps(environment);
}

static int is_present_directory(const char *path)
{
    struct stat here, there;

    return path[0] == '/' && stat(".", &here) == 0 && stat(path, &there) == 0 &&
           here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

void environment_enter(struct environment *environment, const char *place, int is_chosen)
{
    char **pwd = find(environment, "PWD=");

    if (pwd == NULL || strcmp(environment->by[pwd - environment->list], "caller") != 0 ||
        strcmp(*pwd + strlen("PWD="), place) == 0 ||
        (!is_chosen && is_present_directory(*pwd + strlen("PWD="))))
        return;
    *pwd = (char *)joined("PWD", '=', place);
    environment->by[pwd - environment->list] = "shifter";
}
