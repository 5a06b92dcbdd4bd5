#include "names.h"

#include "reference.h"

#include <stdlib.h>
#include <string.h>

/* Whether the key names one image, whatever it is made for: by its id, or its manifest's digest. */
static int is_exact(const char *key, const struct record *record)
{
    const char *digest = strchr(key, '@');

    return reference_is_id(key) || (digest != NULL && strcmp(digest + 1, record->digest) == 0);
}

/* Whether what the key means by itself is for the machine. */
static int suits(const struct machine *machine, const char *key, const struct record *record)
{
    return machine_runs(machine, record->platform) || is_exact(key, record);
}

static enum name_answer find(int fd, const char *key, size_t length, struct value *value,
                             struct record *record, const char **why)
{
    switch (index_find_bytes(fd, key, length, value)) {
    case INDEX_FOUND:
        break;
    case INDEX_ABSENT:
    case INDEX_EMPTY:
        return NAME_ABSENT;
    case INDEX_DAMAGED:
        *why = value->why;
        return NAME_DAMAGED;
    case INDEX_UNREADABLE:
        return NAME_UNREADABLE;
    }
    switch (record_read_bytes(record, key, length, value->bytes, value->length, why)) {
    case RECORD_READ:
        break;
    case RECORD_DAMAGED:
        return NAME_DAMAGED;
    case RECORD_NEWER:
        return NAME_NEWER;
    }
    return NAME_FOUND;
}

enum name_answer names_find(int fd, const struct machine *machine, const char *key,
                            struct value *value, struct record *record, const char **why)
{
    enum name_answer plain = find(fd, key, strlen(key), value, record, why), own;
    struct value machines;
    struct record others;
    size_t length;
    char *text;

    if (plain == NAME_FOUND && !suits(machine, key, record))
        plain = NAME_ELSEWHERE;
    if (plain != NAME_ELSEWHERE && (plain != NAME_ABSENT || reference_is_id(key)))
        return plain;
    text = machine_key(machine, key, &length);
    own = find(fd, text, length, &machines, &others, why);
    free(text);
    if (own == NAME_ABSENT)
        return plain;
    *value = machines;
    *record = others;
    return own;
}

int names_read(const struct machine *machine, const char *key, const struct value *value,
               struct record *record)
{
    const char *why;
    size_t length;
    char *text;
    int is_read;

    if (record_read(record, key, value->bytes, value->length, &why) == RECORD_READ)
        return suits(machine, key, record);
    text = machine_key(machine, key, &length);
    is_read = record_read_bytes(record, text, length, value->bytes, value->length, &why) ==
              RECORD_READ;
    free(text);
    return is_read;
}
