#include "group_names.h"

#include "accounts.h"
#include "files.h"

#include <stdlib.h>
#include <string.h>

static int compare(const void *one, const void *other)
{
    gid_t left = ((const struct snapshot_group *)one)->gid;
    gid_t right = ((const struct snapshot_group *)other)->gid;

    return (left > right) - (left < right);
}

/* The kernel keeps groups in order, as a rule. */
static void sort(struct snapshot_group *list, size_t count)
{
    for (size_t at = 1; at < count; at++)
        if (list[at - 1].gid > list[at].gid) {
            qsort(list, count, sizeof *list, compare);
            return;
        }
}

void group_names_begin(struct group_names *names, gid_t gid, const gid_t *groups, size_t count)
{
    struct snapshot_group *list = must_allocate(count + 1, sizeof *list);
    size_t before = 0, kept = 0;

    while (before < count && groups[before] < gid)
        before++;
    for (size_t at = 0; at < count; at++)
        list[at < before ? at : at + 1].gid = groups[at];
    list[before].gid = gid;
    sort(list, count + 1);
    for (size_t at = 1; at <= count; at++)
        if (list[at].gid != list[kept].gid)
            list[++kept] = list[at];
    *names = (struct group_names){list, kept + 1};
}

static struct snapshot_group *find(const struct group_names *names, gid_t gid)
{
    const struct snapshot_group wanted = {gid, NULL};

    return bsearch(&wanted, names->list, names->count, sizeof *names->list, compare);
}

void group_names_know(struct group_names *names, const struct snapshot_group *known, size_t count)
{
    for (size_t at = 0; at < count; at++) {
        struct snapshot_group *group = find(names, known[at].gid);

        if (group != NULL && group->name == NULL)
            group->name = known[at].name;
    }
}

int group_names_are_complete(const struct group_names *names)
{
    for (size_t at = 0; at < names->count; at++)
        if (names->list[at].name == NULL)
            return 0;
    return 1;
}

void group_names_read(struct group_names *names, const char *text)
{
    struct line line;

    while (line_next(&text, GROUP_FIELDS, &line)) {
        struct snapshot_group *group = find(names, line.number);

        if (group != NULL && group->name == NULL)
            group->name = line_field(&line, 0);
    }
}

void group_names_make(struct group_names *names)
{
    enum { ROOM = 1 + DIGITS_ROOM };
    char *made = must_allocate(names->count, ROOM), room[DIGITS_ROOM];

    for (size_t at = 0; at < names->count; at++) {
        struct snapshot_group *group = &names->list[at];

        if (group->name != NULL)
            continue;
        made[0] = 'g';
        strcpy(made + 1, digits_of(group->gid, room));
        group->name = made;
        made += ROOM;
    }
}

const char *group_names_find(const struct group_names *names, gid_t gid)
{
    const struct snapshot_group *group = find(names, gid);

    return group != NULL ? group->name : NULL;
}
