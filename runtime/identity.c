#include "identity.h"

#include "accounts.h"
#include "fail.h"
#include "files.h"
#include "unique.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NAME_LONGEST = 32, LOOKUPS_MOST = 64, LINE_USUAL = 32 };

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

/* The host's line of the caller, or one that is made of a number. */
static void take_user(struct identity *who, const char *passwd, const char *user,
                      const char *home)
{
    const char *rest = passwd;
    struct line line;

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

static void name_groups(struct identity *who)
{
    group_names_begin(&who->names, who->gid, who->groups, who->group_count);
    group_names_know(&who->names, who->known, who->known_count);
}

void identity_from(struct identity *who, char *passwd, char *group, const char *user,
                   const char *home)
{
    who->passwd_file = passwd;
    who->group_file = group;
    name_groups(who);
    group_names_read(&who->names, group);
    group_names_make(&who->names);
    if (who->name == NULL)
        take_user(who, passwd, user, home);
}

static char *read_if(int needed, const char *path)
{
    char shown[PATH_MAX];

    path_format(shown, "'%s'", path);
    return needed ? accounts_read(path, shown, SITE_FILE_MAX) : must_copy("");
}

void identity_read(struct identity *who)
{
    const char *passwd = who->passwd_path != NULL ? who->passwd_path : "/etc/passwd";
    const char *group = who->group_path != NULL ? who->group_path : "/etc/group";
    int is_complete;

    name_groups(who);
    is_complete = group_names_are_complete(&who->names);
    free(who->names.list);
    identity_from(who, read_if(who->name == NULL || who->needs_passwd, passwd),
                  read_if(!is_complete || who->shows_group, group), getenv("USER"),
                  getenv("HOME"));
}

/* One of the container's files: its text so far, and whom it names. */
struct draft {
    char *text;
    size_t length, room;
    struct unique taken;
    uint32_t source; /* the file that is read: 1 is the caller's own lines */
};

/* Begin one that is made of the texts, of which one may be NULL, and `own` lines. */
static void draft_begin(struct draft *draft, const char *host, const char *image, size_t own)
{
    size_t length = (host != NULL ? strlen(host) : 0) + strlen(image);

    *draft = (struct draft){.source = 1};
    unique_begin(&draft->taken, own + length / LINE_USUAL);
}

static void put(struct draft *draft, const char *bytes, size_t length)
{
    while (draft->room - draft->length <= length) {
        draft->room = draft->room == 0 ? 4096 : 2 * draft->room;
        draft->text = realloc(draft->text, draft->room);
        if (draft->text == NULL)
            fail(ENOMEM, NULL, "cannot go on");
    }
    memcpy(draft->text + draft->length, bytes, length);
    draft->length += length;
    draft->text[draft->length] = '\0';
}

static void put_line(struct draft *draft, const char *start, const char *end)
{
    put(draft, start, (size_t)(end - start));
    put(draft, "\n", 1);
}

static int claim(struct draft *draft, const struct line *line)
{
    return unique_add(&draft->taken, line->start, line_name_length(line), line->number,
                      draft->source);
}

/* Take the lines of a file that contradict none that is there. */
static void put_file(struct draft *draft, const char *text, int fields)
{
    struct line line;

    draft->source++;
    while (line_next(&text, fields, &line))
        if (claim(draft, &line))
            put_line(draft, line.start, line.end);
}

/* The same without members, and without root's, as Shifter shows a site's groups. */
static void put_group_names(struct draft *draft, const char *text)
{
    struct line line;

    draft->source++;
    while (line_next(&text, GROUP_FIELDS, &line))
        if (line.number != 0 && claim(draft, &line))
            put_line(draft, line.start, line.field[3]);
}

static char *draft_end(struct draft *draft)
{
    unique_end(&draft->taken);
    return draft->text != NULL ? draft->text : must_copy("");
}

char *identity_passwd(const struct identity *who, const char *image_passwd)
{
    struct draft draft;

    draft_begin(&draft, who->shows_passwd ? who->passwd_file : NULL, image_passwd, 1);
    unique_add(&draft.taken, who->name, strlen(who->name), who->uid, draft.source);
    if (who->shows_passwd)
        put_file(&draft, who->passwd_file, PASSWD_FIELDS);
    put_file(&draft, image_passwd, PASSWD_FIELDS);
    put_line(&draft, who->passwd, who->passwd + strlen(who->passwd));
    return draft_end(&draft);
}

/* A group under the name `name`, unless one of both is taken. */
static int claim_name(struct draft *draft, const char *name, gid_t gid)
{
    return unique_add(&draft->taken, name, strlen(name), gid, draft->source);
}

/* A group of the caller's under its own name, or, where that is another's, under one that is made of
   its number; returns the name, or NULL. */
static const char *claim_group(const struct identity *who, struct draft *draft, gid_t gid)
{
    const char *name = group_names_find(&who->names, gid);

    draft->source++;
    if (claim_name(draft, name, gid))
        return name;
    name = print("g%u", gid);
    return claim_name(draft, name, gid) ? name : NULL;
}

/* Those of the caller's groups that are written, the primary one first. */
static size_t claim_groups(const struct identity *who, struct draft *draft,
                           struct snapshot_group *own)
{
    size_t count = 1;

    own[0] = (struct snapshot_group){who->gid, claim_group(who, draft, who->gid)};
    for (size_t at = 0; at < who->group_count; at++) {
        gid_t gid = who->groups[at];

        if (who->most_groups > 0 && count > who->most_groups)
            break;
        own[count] = (struct snapshot_group){gid, claim_group(who, draft, gid)};
        count += own[count].name != NULL;
    }
    return count;
}

static void put_group(struct draft *draft, const struct snapshot_group *group, const char *member)
{
    char room[DIGITS_ROOM];
    const char *digits = digits_of(group->gid, room);

    put(draft, group->name, strlen(group->name));
    put(draft, ":x:", 3);
    put(draft, digits, strlen(digits));
    put(draft, ":", 1);
    put_line(draft, member, member + strlen(member));
}

char *identity_group(const struct identity *who, const char *image_group)
{
    struct snapshot_group *own = must_allocate(who->group_count + 1, sizeof *own);
    struct draft draft;
    size_t count;

    draft_begin(&draft, who->shows_group ? who->group_file : NULL, image_group,
                who->group_count + 1);
    count = claim_groups(who, &draft, own);
    if (who->shows_group)
        put_group_names(&draft, who->group_file);
    put_file(&draft, image_group, GROUP_FIELDS);
    for (size_t at = 0; at < count; at++)
        put_group(&draft, &own[at], at > 0 ? who->name : "");
    free(own);
    return draft_end(&draft);
}
