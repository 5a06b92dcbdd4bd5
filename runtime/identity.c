#include "identity.h"

#include "accounts.h"
#include "fail.h"
#include "files.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NAME_LONGEST = 32, LOOKUPS_MOST = 64 };

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
    while (line_next(&passwd, PASSWD_FIELDS, &line))
        if (line_has_name(&line, user))
            return 0;
    return 1;
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

/* What the index calls a group, or NULL. */
static const char *known_name(const struct identity *who, gid_t gid)
{
    for (size_t at = 0; at < who->known_count; at++)
        if (who->known[at].gid == gid)
            return who->known[at].name;
    return NULL;
}

static enum index_answer look_up_user(struct identity *who, int index, const char **why)
{
    struct snapshot_user user;
    enum index_answer answer = snapshot_user(index, who->uid, &user, why);

    /* The filesystem may have failed half-way before. */
    who->name = who->passwd = who->home = NULL;
    who->known = user.groups;
    who->known_count = user.group_count;
    if (answer == INDEX_DAMAGED)
        *why = print("%s at the user %u", *why, who->uid);
    if (answer != INDEX_FOUND)
        return answer;
    who->name = user.name;
    who->home = user.home;
    who->passwd = print("%s:x:%u:%u:%s:%s:%s", user.name, who->uid, user.gid, user.gecos, user.home,
                        user.shell);
    return INDEX_FOUND;
}

static enum index_answer look_up_group(struct identity *who, int index, gid_t gid, const char **why)
{
    const char *name;
    enum index_answer answer = snapshot_group(index, gid, &name, why);

    if (answer == INDEX_FOUND)
        who->known[who->known_count++] = (struct snapshot_group){gid, name};
    if (answer == INDEX_DAMAGED)
        *why = print("%s at the group %u", *why, gid);
    return answer;
}

static int is_trouble(enum index_answer answer)
{
    return answer != INDEX_FOUND && answer != INDEX_ABSENT;
}

static void make_room(struct identity *who, size_t more)
{
    who->known = realloc(who->known, (who->known_count + more) * sizeof *who->known);
    if (who->known == NULL)
        fail(ENOMEM, NULL, "cannot go on");
}

enum index_answer identity_lookup(struct identity *who, int index, const char **why)
{
    enum index_answer user = look_up_user(who, index, why), group = INDEX_FOUND;
    size_t left = LOOKUPS_MOST;

    if (is_trouble(user))
        return user;
    make_room(who, LOOKUPS_MOST + 1);
    if (known_name(who, who->gid) == NULL)
        group = look_up_group(who, index, who->gid, why);
    /* Where nobody has published users, the other groups would be asked for in vain. */
    if (user == INDEX_ABSENT && group == INDEX_ABSENT)
        return INDEX_FOUND;
    for (size_t at = 0; at < who->group_count && left > 0 && !is_trouble(group); at++) {
        if (known_name(who, who->groups[at]) != NULL)
            continue;
        group = look_up_group(who, index, who->groups[at], why);
        left--;
    }
    return is_trouble(group) ? group : INDEX_FOUND;
}

void identity_from(struct identity *who, char *passwd, char *group, const char *user,
                   const char *home)
{
    const char *rest = passwd;
    struct line line;

    who->group_file = group;
    if (who->name != NULL)
        return;
    while (line_next(&rest, PASSWD_FIELDS, &line)) {
        if (line.number != who->uid)
            continue;
        who->name = line_field(&line, 0);
        who->home = line_field(&line, 5);
        who->passwd = line_copy(&line);
        return;
    }
    who->name = is_name(user, passwd) ? user : print("u%u", who->uid);
    who->home = home != NULL && home[strcspn(home, ":\n")] == '\0' ? home : "/";
    who->passwd =
        print("%s:x:%u:%u::%s:/bin/sh", who->name, who->uid, who->gid, who->home);
}

static int has_unknown_group(const struct identity *who)
{
    int unknown = known_name(who, who->gid) == NULL;

    for (size_t at = 0; at < who->group_count && !unknown; at++)
        unknown = known_name(who, who->groups[at]) == NULL;
    return unknown;
}

/* The text of a file, or "" if it is not needed or cannot be read. */
static char *read_if(int needed, const char *path)
{
    char *text = needed ? text_read(path) : NULL;

    return text != NULL ? text : must_copy("");
}

void identity_read(struct identity *who)
{
    const char *passwd = who->passwd_path != NULL ? who->passwd_path : "/etc/passwd";
    const char *group = who->group_path != NULL ? who->group_path : "/etc/group";

    identity_from(who, read_if(who->name == NULL, passwd),
                  read_if(has_unknown_group(who), group), getenv("USER"), getenv("HOME"));
}

char *identity_passwd(const struct identity *who, const char *image_passwd)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    struct line line;

    if (out == NULL)
        fail(errno, NULL, "cannot go on");
    while (line_next(&image_passwd, PASSWD_FIELDS, &line))
        if (line.number != who->uid && !line_has_name(&line, who->name))
            fprintf(out, "%.*s\n", (int)(line.end - line.start), line.start);
    fprintf(out, "%s\n", who->passwd);
    if (fclose(out) != 0)
        fail(errno, NULL, "cannot go on");
    return text;
}

/* What a group is called by the index or the host, or a name made of its number. */
static char *group_name(const struct identity *who, gid_t gid)
{
    const char *known = known_name(who, gid), *rest = who->group_file;
    struct line line;

    if (known != NULL)
        return must_copy(known);
    while (line_next(&rest, GROUP_FIELDS, &line))
        if (line.number == gid)
            return line_field(&line, 0);
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
    if (who->most_groups > 0 && groups->count > who->most_groups)
        return;
    for (size_t at = 0; at < groups->count; at++)
        if (groups->list[at].gid == gid)
            return;
    groups->list[groups->count].gid = gid;
    groups->list[groups->count++].name = group_name(who, gid);
}

static int contradicts(const struct groups *groups, const struct line *line)
{
    for (size_t at = 0; at < groups->count; at++)
        if (line->number == groups->list[at].gid || line_has_name(line, groups->list[at].name))
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
        add_group(who, &groups, who->groups[at]);
    while (line_next(&image_group, GROUP_FIELDS, &line))
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
