#include "volumes.h"

#include "files.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define BLANKS " \t\r\n\v\f"
#define DIGITS "0123456789"
#define VOLUME_HINT "write --volume=/FROM:/TO[:ro] or :perNodeCache=size=10G"
#define SITE_HINT "write siteFs=/FROM[:/TO][:FLAG]; flags are ro, rec, slave, private, optional"
#define SIZE_HINT "write a number of bytes, or one with K, M, G, T, P or E, as in perNodeCache=size=10G"
#define SEPARATOR_HINT "put ';' between volumes"

static const char *usage(enum volume_asker asker)
{
    return asker == ASKED_BY_USER ? VOLUME_HINT : SITE_HINT;
}

/* How often the unit is to be doubled from a byte, or -1: it is none. */
static int unit_bits(const char *unit)
{
    static const char units[] = "BKMGTPE";
    const char *found;

    if (unit[0] == '\0')
        return 0;
    found = strchr(units, toupper((unsigned char)unit[0]));
    if (found == NULL)
        return -1;
    if (found != units && toupper((unsigned char)unit[1]) == 'B')
        unit++;
    return unit[1] == '\0' ? 10 * (int)(found - units) : -1;
}

/* What stands behind the point, of a unit of so many bits, in bytes.  Nothing overflows for as
   many digits as TENTHS. */
static uint64_t read_fraction(const char *digits, size_t count, int bits)
{
    uint64_t left = 0, one = 1, bytes = 0;

    for (; count > 0; count--, digits++) {
        left = 10 * left + (uint64_t)(*digits - '0');
        one *= 10;
    }
    for (; bits > 0; bits--) {
        left *= 2;
        bytes = 2 * bytes + (left >= one);
        left %= one;
    }
    return bytes;
}

enum { TENTHS = 18 };

int size_parse(const char *text, uint64_t *size)
{
    size_t whole = strspn(text, DIGITS), point = text[whole] == '.';
    size_t part = point ? strspn(text + whole + 1, DIGITS) : 0;
    int bits = unit_bits(text + whole + point + part);
    uint64_t value;

    if (bits < 0 || whole + part == 0 || whole > TENTHS || part > TENTHS)
        return -1;
    value = whole > 0 ? strtoull(text, NULL, 10) : 0;
    if (value > (uint64_t)INT64_MAX >> bits)
        return -1;
    *size = (value << bits) + read_fraction(text + whole + point, part, bits);
    return *size > 0 ? 0 : -1;
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

/* What follows NAME= if `flag` is that setting, or NULL. */
static char *setting(char *flag, const char *name)
{
    size_t length = strlen(name);

    return strncasecmp(flag, name, length) == 0 && flag[length] == '=' ? flag + length + 1 : NULL;
}

static int read_size(uint64_t *size, const char *text, struct complaint *why)
{
    if (size_parse(text, size) < 0)
        return complain(why, SIZE_HINT, "no size: '%.200s'", text);
    return 0;
}

static int read_type(struct volume *volume, char *type, struct complaint *why)
{
    for (char *at = type; *at != '\0'; at++)
        *at = (char)tolower((unsigned char)*at);
    volume->cache_type = type;
    return type[0] != '\0' ? 0 : complain(why, VOLUME_HINT, "no type of a filesystem: ''");
}

static int twice(const char *flag, struct complaint *why)
{
    return complain(why, "write each flag once", "a flag that stands twice: '%.200s'", flag);
}

/* One of `perNodeCache`'s settings; 1 if `flag` is none. */
static int read_cache_flag(struct volume *volume, char *flag, struct complaint *why)
{
    uint64_t ignored;
    char *value = strcasecmp(flag, "perNodeCache") == 0 ? flag + strlen(flag)
                                                        : setting(flag, "perNodeCache");

    if (value != NULL) {
        if (volume->cache)
            return twice(flag, why);
        volume->cache = 1;
        flag = trim(value);
    }
    if (!volume->cache || flag[0] == '\0')
        return !volume->cache;
    if ((value = setting(flag, "size")) != NULL)
        return volume->cache_size != 0 ? twice(flag, why)
                                       : read_size(&volume->cache_size, value, why);
    if ((value = setting(flag, "fs")) != NULL)
        return volume->cache_type != NULL ? twice(flag, why) : read_type(volume, value, why);
    /* How a file would be made into a filesystem: mkfs(8) knows better. */
    if ((value = setting(flag, "bs")) != NULL)
        return read_size(&ignored, value, why);
    return strcasecmp(flag, "method=loop") != 0;
}

/* Where it is kept that `flag`, one without a value, was asked for; NULL: there is none such. */
static int *place_of_flag(struct volume *volume, const char *flag, enum volume_asker asker)
{
    if (strcasecmp(flag, "ro") == 0)
        return &volume->read_only;
    if (asker == ASKED_BY_USER)
        return NULL;
    /* All mounts are recursive: in a user namespace the kernel makes no others. */
    if (strcasecmp(flag, "rec") == 0)
        return &volume->recursive;
    if (strcasecmp(flag, "slave") == 0)
        return &volume->slave;
    if (strcasecmp(flag, "private") == 0)
        return &volume->private;
    return strcasecmp(flag, "optional") == 0 ? &volume->optional : NULL;
}

static int read_flag(struct volume *volume, char *flag, enum volume_asker asker,
                     struct complaint *why)
{
    int *place = place_of_flag(volume, flag, asker), is_none;

    if (place != NULL) {
        if (*place)
            return twice(flag, why);
        *place = 1;
        return 0;
    }
    is_none = read_cache_flag(volume, flag, why);
    if (is_none <= 0)
        return is_none;
    return complain(why, flag[0] == '/' ? SEPARATOR_HINT : usage(asker),
                    "no flag of a volume: '%.200s'", flag);
}

static int check_target(const struct volume *volume, enum volume_asker asker,
                        struct complaint *why)
{
    const char *reason = volume_forbidden(volume->to, asker);

    if (reason != NULL)
        return complain(why, "mount it somewhere else in the container",
                        "nothing may be mounted at '%s': %s", volume->to, reason);
    return 0;
}

static int check_flags(const struct volume *volume, enum volume_asker asker,
                       struct complaint *why)
{
    if (!volume->cache && strcmp(volume->from, "/") == 0)
        return complain(why, "name a directory in it",
                        "the host's root '/' is no volume: nothing of it may be reachable");
    if (volume->slave && volume->private)
        return complain(why, usage(asker), "the flags 'slave' and 'private' exclude each other");
    if (volume->cache && volume->cache_size == 0)
        return complain(why, VOLUME_HINT, "a perNodeCache needs a size: '%s'", volume->to);
    /* A site may want an empty directory there; of a user it is a mistake. */
    if (volume->cache && volume->read_only && asker == ASKED_BY_USER)
        return complain(why, VOLUME_HINT, "a perNodeCache that is read-only: '%s'", volume->to);
    return 0;
}

/* The field of `text` up to a separator, which is cut off, without the blanks around it; `*text` is
   what follows, or NULL. */
static char *cut(char **text, const char *separators)
{
    char *field = *text;

    *text = strpbrk(field, separators);
    if (*text != NULL)
        *(*text)++ = '\0';
    return trim(field);
}

/* Whether blanks are where a list should have its separator. */
static int has_gap(const char *path)
{
    for (; (path = strpbrk(path, BLANKS)) != NULL; path++)
        if (path[strspn(path, BLANKS)] == '/')
            return 1;
    return 0;
}

static int read_path(const char **place, char *path, enum volume_asker asker,
                     struct complaint *why)
{
    const char *reason = path_normalise(path);

    if (reason != NULL)
        return complain(why, usage(asker), "%s: '%s'", reason, path);
    if (asker == ASKED_BY_SITE && has_gap(path))
        return complain(why, SEPARATOR_HINT, "blanks between volumes: '%s'", path);
    *place = path;
    return 0;
}

/* Where it goes, from `*text` on.  What a site shows may keep its name; a user says both. */
static int read_target(struct volume *volume, char **text, enum volume_asker asker,
                       struct complaint *why)
{
    const char *ahead = *text != NULL ? *text + strspn(*text, BLANKS) : "";
    char *path;

    volume->to = volume->from;
    if (asker == ASKED_BY_SITE && *ahead != '/')
        return 0;
    path = *text != NULL ? cut(text, ":") : (char *)"";
    if (path[0] == '\0')
        return complain(why, usage(asker), "a volume without a place in the container: '%s'",
                        volume->from);
    return read_path(&volume->to, path, asker, why);
}

/* Of several wrong ones each is a mistake; the answer is -1 if one was. */
static int read_flags(struct volume *volume, char *text, enum volume_asker asker,
                      struct complaint *why)
{
    int result = 0;

    while (text != NULL) {
        char *flag = cut(&text, ":,");

        if (flag[0] == '\0' || read_flag(volume, flag, asker, why) == 0)
            continue;
        result = -1;
        if (!complaint_listed(why))
            break;
    }
    return result;
}

int volume_parse(struct volume *volume, char *text, enum volume_asker asker, struct complaint *why)
{
    char *rest = text, *path = cut(&rest, ":");

    memset(volume, 0, sizeof *volume);
    if (path[0] == '\0')
        return complain(why, usage(asker), "a volume without a source");
    if (read_path(&volume->from, path, asker, why) < 0 ||
        read_target(volume, &rest, asker, why) < 0)
        return -1;
    if (check_target(volume, asker, why) < 0 && !complaint_listed(why))
        return -1;
    if (read_flags(volume, rest, asker, why) < 0)
        return -1;
    return check_flags(volume, asker, why);
}

/* Whether a field ends at `text`. */
static int is_end(const char *text)
{
    text += strspn(text, BLANKS);
    return *text == '\0' || strchr(":;,", *text) != NULL;
}

/* Whether the quote at `text` has its twin at the end of a field. */
static int is_closed(const char *text)
{
    const char *twin = text;

    while ((twin = strchr(twin + 1, *text)) != NULL)
        if (is_end(twin + 1))
            return 1;
    return 0;
}

/* Quotes around fields, volumes or all of a list were meant for a shell, and are dropped, as Shifter
   does; one in a path is part of it. */
static void drop_quotes(char *text)
{
    char open = '\0', *to = text;
    int begins = 1;

    for (const char *from = text; *from != '\0'; from++) {
        if (open == '\0' && begins && strchr("\"'", *from) != NULL && is_closed(from)) {
            open = *from;
        } else if (*from == open && is_end(from + 1)) {
            open = '\0';
        } else {
            begins = strchr(":;," BLANKS, *from) != NULL && (begins || strchr(":;,", *from) != NULL);
            *to++ = *from;
        }
    }
    *to = '\0';
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

    drop_quotes(text);
    for (char *entry = strtok_r(text, ";", &rest); entry != NULL;
         entry = strtok_r(NULL, ";", &rest)) {
        if (trim(entry)[0] == '\0')
            continue;
        if (volume_parse(next(volumes), entry, asker, why) == 0)
            volumes->list[volumes->count++].line = why->line;
        else if (!complaint_listed(why))
            return -1;
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
