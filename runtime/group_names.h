/* What a caller's groups are called: by the index, else by a file of groups. */
#ifndef SHIFTER_GROUP_NAMES_H
#define SHIFTER_GROUP_NAMES_H

#include "snapshot.h"

#include <stddef.h>
#include <sys/types.h>

/* Each group once, by number; a name that nothing has is NULL. */
struct group_names {
    struct snapshot_group *list;
    size_t count;
};

/* Begin with the numbers alone. */
void group_names_begin(struct group_names *names, gid_t gid, const gid_t *groups, size_t count);

/* Take what the index calls them; to be said before group_names_read. */
void group_names_know(struct group_names *names, const struct snapshot_group *known, size_t count);

int group_names_are_complete(const struct group_names *names);

/* Take the names that are missing from the text of a file of groups. */
void group_names_read(struct group_names *names, const char *text);

/* Make names of numbers, "g100", for those that have none yet. */
void group_names_make(struct group_names *names);

/* The name of one of them, or NULL. */
const char *group_names_find(const struct group_names *names, gid_t gid);

#endif
