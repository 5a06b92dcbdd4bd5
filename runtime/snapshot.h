/* What the index says of a site's users and groups (spool/index.md, "Users and groups").

   The index lies where only the site writes, but its bytes are trusted no more than any: a name
   from here becomes a line of the container's passwd. */
#ifndef SHIFTER_SNAPSHOT_H
#define SHIFTER_SNAPSHOT_H

#include "index.h"

#include <stddef.h>
#include <sys/types.h>

enum { SNAPSHOT_GROUPS_MOST = 1000 };

struct snapshot_group {
    gid_t gid;
    const char *name;
};

struct snapshot_user {
    const char *name, *gecos, *home, *shell; /* none is NULL */
    gid_t gid;
    struct snapshot_group *groups; /* the user's; there is room for SNAPSHOT_GROUPS_MOST */
    size_t group_count;
};

/* Find a user or a group in the index open on `index`.  INDEX_ABSENT also for what a later version
   has written: then names come from elsewhere.  `why` is set with INDEX_DAMAGED.  A user that was
   not found is all zero. */
enum index_answer snapshot_user(int index, uid_t uid, struct snapshot_user *user,
                                const char **why);
enum index_answer snapshot_group(int index, gid_t gid, const char **name, const char **why);

/* Whether `text` may be a user's or a group's name in a line of passwd or group. */
int snapshot_is_name(const char *text);

#endif
