#include "identity.h"

#include "fail.h"
#include "files.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PASSWD_FIELDS = 7, GROUP_FIELDS = 4, NAME_LONGEST = 32 };

/* One line of passwd or group: where its name, its number and its last but one field are. */
struct line {
    const char *start, *end;
    const char *field[PASSWD_FIELDS];
    uint32_t number;
};

static int read_number(const char *digits, uint32_t *number)
{
    size_t length = strspn(digits, "0123456789");
    unsigned long long value = length > 0 && length <= 10 ? strtoull(digits, NULL, 10) : UINT64_MAX;

    *number = (uint32_t)value;
    return digits[length] == ':' && value < UINT32_MAX;
}

/* Take the next well-formed line of `fields` fields from `*text`; 0 at its end. */
static int next_line(const char **text, int fields, struct line *line)
{
    while (**text != '\0') {
        int count = 1;

        line->start = line->field[0] = *text;
        line->end = *text + strcspn(*text, "\n");
        *text = *line->end == '\n' ? line->end + 1 : line->end;
        for (const char *at = line->start; at < line->end; at++)
            if (*at == ':' && ++count <= fields)
                line->field[count - 1] = at + 1;
        if (count == fields && *line->start != ':' && strchr("#+-", *line->start) == NULL &&
            read_number(line->field[2], &line->number))
            return 1;
    }
    return 0;
}

static int has_name(const struct line *line, const char *name)
{
    size_t length = strlen(name);

    return strncmp(line->start, name, length) == 0 && line->start[length] == ':';
}

static char *copy_field(const char *field, const char *end)
{
    char *copy = strndup(field, (size_t)(end - field));

    if (copy == NULL)
        fail(ENOMEM, NULL, "cannot go on");
    return copy;
}

static char *field_of(const struct line *line, int number)
{
    const char *field = line->field[number];

    return copy_field(field, field + strcspn(field, ":\n"));
}

static char *print(const char *format, ...) __attribute__((format(printf, 1, 2)));

static char *print(const char *format, ...)
{
    va_list values;
    char *text = NULL;

    va_start(values, format);
    if (vasprintf(&text, format, values) < 0)
        fail(ENOMEM, NULL, "cannot go on");
    va_end(values);
    return text;
}

/* Whether USER may be believed: a plain name that the host gives to nobody else. */
static int is_name(const char *user, const char *passwd)
{
    struct line line;

    if (user == NULL || strlen(user) > NAME_LONGEST || strchr("0123456789-", user[0]) != NULL ||
        user[strspn(user, "abcdefghijklmnopqrstuvwxyz0123456789_-")] != '\0')
        return 0;
    while (next_line(&passwd, PASSWD_FIELDS, &line))
        if (has_name(&line, user))
            return 0;
    return 1;
}

void identity_from(struct identity *who, char *passwd, char *group, const char *user,
                   const char *home)
{
    const char *rest = passwd;
    struct line line;

    who->group_file = group;
    while (next_line(&rest, PASSWD_FIELDS, &line)) {
        if (line.number != who->uid)
            continue;
        who->name = field_of(&line, 0);
        who->home = field_of(&line, 5);
        who->passwd = copy_field(line.start, line.end);
        return;
    }
    who->name = is_name(user, passwd) ? user : print("u%u", who->uid);
    who->home = home != NULL && home[strcspn(home, ":\n")] == '\0' ? home : "/";
    who->passwd =
        print("%s:x:%u:%u::%s:/bin/sh", who->name, who->uid, who->gid, who->home);
}

static char *read_or_empty(const char *path)
{
    char *text = text_read(path);

    return text != NULL ? text : must_copy("");
}

void identity_begin(struct identity *who)
{
    int count = getgroups(0, NULL);

    MUST(count, "cannot read the caller's groups");
    memset(who, 0, sizeof *who);
    who->uid = geteuid();
    who->gid = getegid();
    who->groups = must_allocate((size_t)count + 1, sizeof *who->groups);
    count = getgroups(count, who->groups);
    MUST(count, "cannot read the caller's groups");
    who->group_count = (size_t)count;
}

void identity_read(struct identity *who)
{
    identity_from(who, read_or_empty(who->passwd_path != NULL ? who->passwd_path : "/etc/passwd"),
                  read_or_empty(who->group_path != NULL ? who->group_path : "/etc/group"),
                  getenv("USER"), getenv("HOME"));
}

char *identity_passwd(const struct identity *who, const char *image_passwd)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    struct line line;

    if (out == NULL)
        fail(errno, NULL, "cannot go on");
    while (next_line(&image_passwd, PASSWD_FIELDS, &line))
        if (line.number != who->uid && !has_name(&line, who->name))
            fprintf(out, "%.*s\n", (int)(line.end - line.start), line.start);
    fprintf(out, "%s\n", who->passwd);
    if (fclose(out) != 0)
        fail(errno, NULL, "cannot go on");
    return text;
}

/* The host's name of a group, or one made of its number. */
static char *group_name(const struct identity *who, gid_t gid)
{
    const char *rest = who->group_file;
    struct line line;

    while (next_line(&rest, GROUP_FIELDS, &line))
        if (line.number == gid)
            return field_of(&line, 0);
    return print("g%u", gid);
}

/* The caller's groups, each once, the primary one first. */
struct groups {
    size_t count;
    struct {
        gid_t gid;
        char *name;
    } *list;
};

static void add_group(const struct identity *who, struct groups *groups, gid_t gid)
{
    for (size_t at = 0; at < groups->count; at++)
        if (groups->list[at].gid == gid)
            return;
    groups->list[groups->count].gid = gid;
    groups->list[groups->count++].name = group_name(who, gid);
}

static int contradicts(const struct groups *groups, const struct line *line)
{
    for (size_t at = 0; at < groups->count; at++)
        if (line->number == groups->list[at].gid || has_name(line, groups->list[at].name))
            return 1;
    return 0;
}

char *identity_group(const struct identity *who, const char *image_group)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    struct groups groups = {0, must_allocate(who->group_count + 1, sizeof *groups.list)};
    struct line line;

    if (out == NULL)
        fail(errno, NULL, "cannot go on");
    add_group(who, &groups, who->gid);
    for (size_t at = 0; at < who->group_count; at++)
        if (who->most_groups == 0 || at < who->most_groups)
            add_group(who, &groups, who->groups[at]);
    while (next_line(&image_group, GROUP_FIELDS, &line))
        if (!contradicts(&groups, &line))
            fprintf(out, "%.*s\n", (int)(line.end - line.start), line.start);
    for (size_t at = 0; at < groups.count; at++)
        fprintf(out, "%s:x:%u:%s\n", groups.list[at].name, groups.list[at].gid,
                at > 0 ? who->name : "");
    if (fclose(out) != 0)
        fail(errno, NULL, "cannot go on");
    for (size_t at = 0; at < groups.count; at++)
        free(groups.list[at].name);
    free(groups.list);
    return text;
}
