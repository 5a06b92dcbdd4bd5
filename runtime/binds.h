/* What of the host is seen in the container: the wishes of a plan, found on this node. */
#ifndef SHIFTER_BINDS_H
#define SHIFTER_BINDS_H

#include "plan.h"

#include <limits.h>
#include <stddef.h>
#include <sys/types.h>

struct bind {
    const struct wish *wish;
    const char *path;   /* of the source */
    const char *wanted; /* where it shall be in the container */
    int tree;           /* the source's mounts, copied and ready to be attached; -1: none … */
    int source;         /* … but the host's directory or file itself; -1: no need of it */
    mode_t type;        /* of the source: S_IFDIR or another */
    uid_t owner;
    mode_t inside;      /* what the image has there; 0: nothing */
    int is_early;       /* it is mounted already */
    char *target;       /* in the container, as the image's links lead there; NULL: not made */
};

struct binds {
    const struct plan *plan;
    struct bind *list;
    size_t count, room;
    int is_changed; /* a source is another file than binds_look has seen */
};

/* Look which file each source is, for the container's key; an automounter brings it before our
   namespaces, in which it cannot. */
void binds_look(struct plan *plan);

/* Whether a source is another file by now. */
int binds_have_changed(const struct plan *plan);

/* A source that is missing and must not be ends the launch here, before anything is made. */
void binds_find(const struct plan *plan);

/* Open the sources and copy their mounts.  In the mount namespace, before root_begin, while the
   host's root is still whole: a bind can be made of no other namespace's mount.  A source that has
   been replaced since binds_look is shown as it is now, and makes the container another one. */
void binds_open(struct binds *binds, const struct plan *plan);

/* Decide which are made, and where, and make the mount points that the image lacks.  `etc` is
   where the image's /etc is: nothing is put over it. */
void binds_plan(struct binds *binds, const char *etc);

/* Mount those of `asker` into the skeleton, for hooks that expect them, unless they lie in what is
   mounted later. */
void binds_mount_early(struct binds *binds, const char *etc, enum asker asker);

/* Mount the others into the new root. */
void binds_mount(const struct binds *binds, const char *etc);

#endif
