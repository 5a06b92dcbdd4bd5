#include "volumes.h"

#include "files.h"

#include <stdlib.h>
#include <string.h>

#define VOLUME_HINT "write --volume=/FROM:/TO[:ro] or :perNodeCache=size=10G"
#define SITE_HINT "write siteFs=/FROM[:/TO][:FLAG]; flags are ro, rec, slave, private, optional"

static const char *usage(enum volume_asker asker)
{
    return asker == ASKED_BY_USER ? VOLUME_HINT : SITE_HINT;
}

int size_parse(const char *text, uint64_t *size)
{
    static const char units[] = "KMGT";
    size_t digits = strspn(text, "0123456789");
    const char *unit = NULL;
    uint64_t value;

    /* 18 digits cannot overflow. */
    if (digits == 0 || digits > 18)
        return -1;
    value = strtoull(text, NULL, 10);
    if (text[digits] != '\0') {
        unit = strchr(units, text[digits] & ~0x20);
        if (unit == NULL || *unit == '\0' || text[digits + 1] != '\0')
            return -1;
        for (long power = unit - units; power >= 0; power--) {
            if (value > UINT64_MAX / 2048)
                return -1;
            value *= 1024;
        }
    }
    *size = value;
    return value > 0 && value <= INT64_MAX ? 0 : -1;
}

static int has_parent(const char *path)
{
    for (const char *at = strstr(path, "/.."); at != NULL; at = strstr(at + 1, "/.."))
        if (at[3] == '/' || at[3] == '\0')
            return 1;
    return 0;
}

const char *path_normalise(char *path)
{
    char *to = path;
    const char *from = path;

    if (path[0] != '/')
        return "not an absolute path";
    if (has_parent(path))
        return "a path with '..' in it";
    if (strlen(path) >= PATH_MAX)
        return "too long a path";
    while (*from != '\0') {
        size_t length;

        from += strspn(from, "/");
        length = strcspn(from, "/");
        if (length > 0 && !(length == 1 && from[0] == '.')) {
            *to++ = '/';
            memmove(to, from, length);
            to += length;
        }
        from += length;
    }
    if (to == path)
        *to++ = '/';
    *to = '\0';
    return NULL;
}

/* What the container is made of, or writes itself. */
static const struct {
    const char *path;
    int beneath_too, sites_too;
    const char *why;
} forbidden[] = {
    {"/proc", 1, 1, "there are the kernel's own files"},
    {"/sys", 1, 0, "there are the kernel's own files"},
    {"/dev", 1, 0, "there are the node's devices"},
    {"/etc", 0, 1, "files of the container's own are in it"},
    {"/etc/passwd", 1, 1, "it is the container's own"},
    {"/etc/group", 1, 1, "it is the container's own"},
    {"/etc/nsswitch.conf", 1, 1, "it is the container's own"},
    {"/etc/mtab", 1, 1, "it is the container's own"},
    {"/etc/host.conf", 1, 0, "it is the container's own"},
    {"/etc/hosts", 1, 0, "it is the container's own"},
    {"/etc/resolv.conf", 1, 0, "it is the container's own"},
    {"/opt", 0, 1, "the site's /opt/udiImage is in it"},
    {"/opt/udiImage", 1, 0, "it is the site's"},
    {"/var", 0, 1, "only directories in it may be replaced"},
};

const char *volume_forbidden(const char *path, enum volume_asker asker)
{
    if (strcmp(path, "/") == 0)
        return "it is the image";
    for (size_t at = 0; at < sizeof forbidden / sizeof forbidden[0]; at++) {
        if (asker == ASKED_BY_SITE && !forbidden[at].sites_too)
            continue;
        if (forbidden[at].beneath_too ? path_within(path, forbidden[at].path)
                                      : strcmp(path, forbidden[at].path) == 0)
            return forbidden[at].why;
    }
    return NULL;
}

/* One of `perNodeCache`'s settings; 0 if `flag` is none. */
static int read_cache_flag(struct volume *volume, const char *flag)
{
    if (strncmp(flag, "perNodeCache=", 13) == 0 && !volume->cache) {
        volume->cache = 1;
        flag += 13;
    }
    if (!volume->cache)
        return 0;
    if (strncmp(flag, "size=", 5) == 0)
        return size_parse(flag + 5, &volume->cache_size) == 0;
    if (strncmp(flag, "fs=", 3) == 0) {
        volume->cache_type = flag + 3;
        return flag[3] != '\0';
    }
    /* How a file would have been made into a filesystem: there is none. */
    if (strncmp(flag, "bs=", 3) == 0) {
        uint64_t ignored;

        return size_parse(flag + 3, &ignored) == 0;
    }
    return strcmp(flag, "method=loop") == 0;
}

static int read_flag(struct volume *volume, const char *flag, enum volume_asker asker)
{
    if (strcmp(flag, "ro") == 0)
        return volume->read_only = 1;
    if (asker == ASKED_BY_SITE) {
        /* All mounts are recursive: in a user namespace the kernel makes no others. */
        if (strcmp(flag, "rec") == 0)
            return 1;
        if (strcmp(flag, "slave") == 0)
            return volume->slave = 1;
        if (strcmp(flag, "private") == 0)
            return volume->private = 1;
        if (strcmp(flag, "optional") == 0)
            return volume->optional = 1;
    }
    return read_cache_flag(volume, flag);
}

static int check(const struct volume *volume, enum volume_asker asker, struct complaint *why)
{
    const char *reason = volume_forbidden(volume->to, asker);

    if (reason != NULL)
        return complain(why, "mount it somewhere else in the container",
                        "nothing may be mounted at '%s': %s", volume->to, reason);
    if (!volume->cache && strcmp(volume->from, "/") == 0)
        return complain(why, "name a directory in it",
                        "the host's root '/' is no volume: nothing of it may be reachable");
    if (volume->slave && volume->private)
        return complain(why, usage(asker), "the flags 'slave' and 'private' exclude each other");
    if (volume->cache && volume->cache_size == 0)
        return complain(why, VOLUME_HINT, "a perNodeCache needs a size: '%s'", volume->to);
    if (volume->cache && volume->read_only)
        return complain(why, VOLUME_HINT, "a perNodeCache that is read-only: '%s'", volume->to);
    return 0;
}

/* The field of `text` up to a colon, which is cut off; `*text` is what follows, or NULL. */
static char *cut(char **text, const char *separators)
{
    char *field = *text;

    *text = strpbrk(field, separators);
    if (*text != NULL)
        *(*text)++ = '\0';
    return field;
}

static int read_path(char *path, enum volume_asker asker, struct complaint *why)
{
    const char *reason = path_normalise(path);

    if (reason != NULL)
        return complain(why, usage(asker), "%s: '%s'", reason, path);
    return 0;
}

int volume_parse(struct volume *volume, char *text, enum volume_asker asker, struct complaint *why)
{
    char *rest = trim(text), *path = cut(&rest, ":");

    memset(volume, 0, sizeof *volume);
    if (path[0] == '\0')
        return complain(why, usage(asker), "a volume without a source");
    if (read_path(path, asker, why) < 0)
        return -1;
    volume->from = volume->to = path;
    if (rest != NULL && rest[0] == '/') {
        path = cut(&rest, ":");
        if (read_path(path, asker, why) < 0)
            return -1;
        volume->to = path;
    }
    while (rest != NULL) {
        const char *flag = cut(&rest, ":,");

        if (!read_flag(volume, flag, asker))
            return complain(why, usage(asker), "no flag of a volume: '%s'", flag);
    }
    return check(volume, asker, why);
}

static struct volume *next(struct volumes *volumes)
{
    volumes->list = must_grow(volumes->list, volumes->count, &volumes->room, sizeof *volumes->list);
    return &volumes->list[volumes->count];
}

int volumes_parse(struct volumes *volumes, char *text, enum volume_asker asker,
                  struct complaint *why)
{
    char *rest = NULL;

    for (char *entry = strtok_r(text, ";", &rest); entry != NULL;
         entry = strtok_r(NULL, ";", &rest)) {
        if (trim(entry)[0] == '\0')
            continue;
        if (volume_parse(next(volumes), entry, asker, why) < 0)
            return -1;
        volumes->list[volumes->count++].line = why->line;
    }
    return 0;
}

int volume_check_cache(const struct volume *volume, const struct cache_rules *rules,
                       struct complaint *why)
{
    if (!volume->cache)
        return 0;
    if (rules->size_limit != 0 && volume->cache_size > rules->size_limit)
        return complain(why, "ask for less, or the site for more",
                        "a perNodeCache of %llu bytes at '%s', where the site allows %llu",
                        (unsigned long long)volume->cache_size, volume->to,
                        (unsigned long long)rules->size_limit);
    if (rules->types.count > 0 && volume->cache_type != NULL &&
        !words_have(&rules->types, volume->cache_type))
        return complain(why, "leave fs= away",
                        "a perNodeCache of the type '%s' at '%s', which the site does not allow",
                        volume->cache_type, volume->to);
    return 0;
}
