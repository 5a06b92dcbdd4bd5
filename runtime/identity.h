/* Who the caller is, from the kernel, the index and plain files: no name service is asked, for a
   thousand nodes that start at once would all ask it.  In this order:

       identity_begin     the kernel's numbers
       identity_lookup    the names that the index has, while it is open anyway
       identity_read      what is still missing: the host's files, then names made of numbers */
#ifndef SHIFTER_IDENTITY_H
#define SHIFTER_IDENTITY_H

#include "group_names.h"
#include "index.h"
#include "snapshot.h"

#include <stddef.h>
#include <sys/types.h>

struct identity {
    uid_t uid;
    gid_t gid;
    gid_t *groups; /* supplementary */
    size_t group_count;
    const char *name;             /* of the caller */
    const char *passwd;           /* the caller's line */
    const char *home;             /* in that line; may be empty */
    struct snapshot_group *known; /* what the index calls groups */
    size_t known_count;
    char *passwd_file, *group_file; /* the host's texts, or "" */
    struct group_names names;       /* what the caller's groups are called */
    /* Set by the caller of identity_begin: */
    const char *passwd_path, *group_path; /* the host's files; NULL: those of /etc */
    int needs_passwd;              /* the host's passwd is read in any case */
    int shows_passwd, shows_group; /* all lines of the host's files go into the container */
    size_t most_groups; /* so many are written beside the primary one; 0: all */
};

/* Ask the kernel; before the user namespace, which hides the supplementary groups. */
void identity_begin(struct identity *who);

/* Take what the index open on `index` has: INDEX_FOUND also if that is nothing, INDEX_DAMAGED and
   why, or INDEX_UNREADABLE and errno.  It can be done again. */
enum index_answer identity_lookup(struct identity *who, int index, const char **why);

/* Find what is missing.  Files that are not needed are not read. */
void identity_read(struct identity *who);

/* The same from texts: the host's passwd and group, and what USER and HOME say, or NULL. */
void identity_from(struct identity *who, char *passwd, char *group, const char *user,
                   const char *home);

/* The container's files, from malloc.  The caller's own lines count most, then the host's, if they
   are shown, then the image's; a line that contradicts one which counts more is left out.  The
   host's groups are shown without members: what the caller is in, the kernel has said. */
char *identity_passwd(const struct identity *who, const char *image_passwd);
char *identity_group(const struct identity *who, const char *image_group);

#endif
