#include "record.h"

#include <stdio.h>
#include <string.h>

enum { SUM_LENGTH = sizeof "sum=00000000" };

static uint32_t crc32_add(uint32_t crc, const char *bytes, size_t length)
{
    for (size_t at = 0; at < length; at++) {
        crc ^= (unsigned char)bytes[at];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1)));
    }
    return crc;
}

static int sum_is_right(const char *key, size_t key_length, const char *value, size_t length)
{
    char sum[SUM_LENGTH];
    uint32_t crc = 0xFFFFFFFFu;

    crc = crc32_add(crc, key, key_length);
    crc = crc32_add(crc, "", 1);
    crc = crc32_add(crc, value, length);
    snprintf(sum, sizeof sum, "sum=%08x", (unsigned)(crc ^ 0xFFFFFFFFu));
    return memcmp(sum, value + length, sizeof sum) == 0;
}

static int is_hex(const char *text, size_t length)
{
    return strlen(text) == length && strspn(text, "0123456789abcdef") == length;
}

static int read_number(const char *text, uint64_t *number)
{
    size_t length = strlen(text);

    /* 18 digits cannot overflow. */
    if (length == 0 || length > 18 || strspn(text, "0123456789") != length)
        return 0;
    for (*number = 0; *text != '\0'; text++)
        *number = *number * 10 + (uint64_t)(*text - '0');
    return 1;
}

/* What stands exactly once in a record, and what may stand at most once. */
struct singles {
    const char *id, *size, *digest, *time, *workdir, *user, *platform;
};

static const char **single(struct singles *found, const char *field, size_t length)
{
    const struct {
        const char *name;
        const char **place;
    } names[] = {
        {"id", &found->id},     {"size", &found->size},       {"digest", &found->digest},
        {"time", &found->time}, {"workdir", &found->workdir}, {"user", &found->user},
        {"platform", &found->platform},
    };

    for (size_t at = 0; at < sizeof names / sizeof names[0]; at++)
        if (strlen(names[at].name) == length && memcmp(names[at].name, field, length) == 0)
            return names[at].place;
    return NULL;
}

/* The list that a field belongs to, or NULL. */
static struct words *list(struct record *record, const char *field)
{
    if (strncmp(field, "env=", 4) == 0)
        return &record->env;
    if (strncmp(field, "entrypoint=", 11) == 0)
        return &record->entrypoint;
    return strncmp(field, "cmd=", 4) == 0 ? &record->cmd : NULL;
}

static const char *read_fields(struct record *record, const char *field, const char *end,
                               struct singles *found)
{
    for (; field < end; field += strlen(field) + 1) {
        const char *equals = strchr(field, '=');
        struct words *words = list(record, field);
        const char **place;

        if (equals == NULL)
            return "a field without '='";
        if (words != NULL)
            words_add(words, equals + 1);
        place = single(found, field, (size_t)(equals - field));
        if (place != NULL && *place != NULL)
            return "a field stands twice";
        if (place != NULL)
            *place = equals + 1;
    }
    return NULL;
}

static const char *check(struct record *record, const struct singles *found)
{
    uint64_t ignored;

    if (found->id == NULL || !is_hex(found->id, ID_LENGTH))
        return "no image id";
    memcpy(record->id, found->id, sizeof record->id);
    if (found->size == NULL || !read_number(found->size, &record->size))
        return "no size";
    if (found->digest == NULL || strncmp(found->digest, "sha256:", 7) != 0 ||
        !is_hex(found->digest + 7, 64))
        return "no digest";
    if (found->time == NULL || !read_number(found->time, &ignored))
        return "no time";
    record->workdir = found->workdir;
    record->digest = found->digest;
    record->platform = found->platform;
    return NULL;
}

enum record_answer fields_check(const char *key, const char *value, size_t length,
                                const char **why)
{
    return fields_check_bytes(key, strlen(key), value, length, why);
}

enum record_answer fields_check_bytes(const char *key, size_t key_length, const char *value,
                                      size_t length, const char **why)
{
    size_t body = length - SUM_LENGTH;

    *why = "a wrong checksum";
    /* Every field, the last of the body too, is ended by a NUL: nothing below runs past it. */
    if (length < SUM_LENGTH || !sum_is_right(key, key_length, value, body) ||
        (body > 0 && value[body - 1] != '\0'))
        return RECORD_DAMAGED;
    *why = "no version";
    if (body < 3 || memcmp(value, "v=", 2) != 0)
        return RECORD_DAMAGED;
    return strcmp(value, "v=1") == 0 ? RECORD_READ : RECORD_NEWER;
}

size_t fields_body(size_t length)
{
    return length - SUM_LENGTH;
}

const char *fields_find(const char *value, size_t length, const char *name)
{
    const char *end = value + length;

    for (; value < end; value += strlen(value) + 1)
        if (strncmp(value, name, strlen(name)) == 0 && value[strlen(name)] == '=')
            return value + strlen(name) + 1;
    return NULL;
}

enum record_answer record_read(struct record *record, const char *key, const char *value,
                               size_t length, const char **why)
{
    return record_read_bytes(record, key, strlen(key), value, length, why);
}

enum record_answer record_read_bytes(struct record *record, const char *key, size_t key_length,
                                     const char *value, size_t length, const char **why)
{
    struct singles found = {0};
    enum record_answer answer = fields_check_bytes(key, key_length, value, length, why);

    memset(record, 0, sizeof *record);
    if (answer != RECORD_READ)
        return answer;
    *why = read_fields(record, value, value + length - SUM_LENGTH, &found);
    if (*why == NULL)
        *why = check(record, &found);
    return *why == NULL ? RECORD_READ : RECORD_DAMAGED;
}
