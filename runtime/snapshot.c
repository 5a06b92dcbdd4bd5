#include "snapshot.h"

#include "files.h"
#include "record.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_LONGEST = 255 };

static int is_text(const char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f || *text == ':')
            return 0;
    return 1;
}

static int is_path(const char *text)
{
    return is_text(text) && (text[0] == '/' || text[0] == '\0');
}

int snapshot_is_name(const char *text)
{
    size_t length = strlen(text);

    return length > 0 && length <= NAME_LONGEST && is_text(text) &&
           strpbrk(text, ",/") == NULL && strchr("#+- ", text[0]) == NULL &&
           text[length - 1] != ' ';
}

/* Read the number that `text` begins with, up to `end`; what the kernel means by -1 is none. */
static int read_id(const char *text, char end, uint32_t *id)
{
    size_t length = strspn(text, "0123456789");
    unsigned long long value = length > 0 && length <= 10 ? strtoull(text, NULL, 10) : UINT64_MAX;

    *id = (uint32_t)value;
    return text[length] == end && value < UINT32_MAX;
}

/* Bring the checked fields under a key, one of a letter and a number. */
static enum index_answer find(int index, char kind, uint32_t id, struct value *value,
                              const char **why)
{
    char key[16] = "";
    size_t length = 1 + (size_t)snprintf(key + 1, sizeof key - 1, "%c%u", kind, id);
    enum index_answer answer = index_find_bytes(index, key, length, value);

    *why = value->why;
    if (answer != INDEX_FOUND)
        return answer;
    switch (fields_check_bytes(key, length, value->bytes, value->length, why)) {
    case RECORD_READ:
        value->length = fields_body(value->length);
        return INDEX_FOUND;
    case RECORD_NEWER:
        return INDEX_ABSENT;
    case RECORD_DAMAGED:
        break;
    }
    return INDEX_DAMAGED;
}

/* Fields that may stand once, and what they say or NULL; `user` takes groups, if there is one. */
struct fields {
    const char *const *names;
    const char **texts;
    size_t count;
    struct snapshot_user *user;
};

static int take_group(struct snapshot_user *user, const char *text)
{
    struct snapshot_group *group = &user->groups[user->group_count];
    uint32_t gid;

    if (user->group_count == SNAPSHOT_GROUPS_MOST || !read_id(text, '=', &gid))
        return 0;
    group->gid = gid;
    group->name = strchr(text, '=') + 1;
    user->group_count++;
    return snapshot_is_name(group->name);
}

static const char *take_field(struct fields *fields, const char *name, const char *text)
{
    for (size_t at = 0; at < fields->count; at++) {
        if (strcmp(fields->names[at], name) != 0)
            continue;
        if (fields->texts[at] != NULL)
            return "a field stands twice";
        fields->texts[at] = text;
        return NULL;
    }
    if (fields->user != NULL && strcmp(name, "group") == 0 && !take_group(fields->user, text))
        return "a group that is none";
    return NULL;
}

static const char *read_fields(struct fields *fields, struct value *value)
{
    const char *why = NULL;
    char *next = NULL;

    for (char *field = value->bytes; field < value->bytes + value->length; field = next) {
        char *equals = strchr(field, '=');

        next = field + strlen(field) + 1;
        if (equals == NULL)
            return "a field without '='";
        *equals = '\0';
        why = take_field(fields, field, equals + 1);
        if (why != NULL)
            return why;
    }
    return NULL;
}

enum { NAME, GID, GECOS, HOME, SHELL, SINGLES };

static const char *const names[SINGLES] = {"name", "gid", "gecos", "home", "shell"};

static const char *check_user(struct snapshot_user *user, const char *const texts[SINGLES])
{
    uint32_t gid;

    if (texts[NAME] == NULL || !snapshot_is_name(texts[NAME]))
        return "no name";
    if (texts[GID] == NULL || !read_id(texts[GID], '\0', &gid))
        return "no group";
    user->name = texts[NAME];
    user->gid = gid;
    user->gecos = texts[GECOS] != NULL ? texts[GECOS] : "";
    user->home = texts[HOME] != NULL && texts[HOME][0] != '\0' ? texts[HOME] : "/";
    user->shell = texts[SHELL] != NULL && texts[SHELL][0] != '\0' ? texts[SHELL] : "/bin/sh";
    if (!is_text(user->gecos) || !is_path(user->home) || !is_path(user->shell))
        return "a text that breaks a line of passwd";
    return NULL;
}

enum index_answer snapshot_user(int index, uid_t uid, struct snapshot_user *user,
                                const char **why)
{
    const char *texts[SINGLES] = {NULL, NULL, NULL, NULL, NULL};
    struct fields fields = {names, texts, SINGLES, user};
    struct value value;
    enum index_answer answer = find(index, 'u', uid, &value, why);

    memset(user, 0, sizeof *user);
    if (answer == INDEX_FOUND) {
        user->groups = must_allocate(SNAPSHOT_GROUPS_MOST, sizeof *user->groups);
        *why = read_fields(&fields, &value);
        if (*why == NULL)
            *why = check_user(user, texts);
        if (*why == NULL)
            return INDEX_FOUND;
        free(user->groups);
        memset(user, 0, sizeof *user);
        answer = INDEX_DAMAGED;
    }
    free(value.bytes);
    return answer;
}

enum index_answer snapshot_group(int index, gid_t gid, const char **name, const char **why)
{
    struct fields fields = {names, name, 1, NULL};
    struct value value;
    enum index_answer answer = find(index, 'g', gid, &value, why);

    *name = NULL;
    if (answer == INDEX_FOUND) {
        *why = read_fields(&fields, &value);
        if (*why == NULL && *name != NULL && snapshot_is_name(*name))
            return INDEX_FOUND;
        if (*why == NULL)
            *why = "no name";
        answer = INDEX_DAMAGED;
    }
    free(value.bytes);
    return answer;
}
