/* What of the host is seen in the container. */
#ifndef SHIFTER_BINDS_H
#define SHIFTER_BINDS_H

#include <limits.h>
#include <stddef.h>
#include <sys/types.h>

enum { BINDS_MOST = 8 };

enum bind_kind { STANDARD, HOME, CWD };

struct bind {
    const char *path;         /* on the host, and in the container as its own links resolve it */
    int source;               /* the host's directory */
    int tree;                 /* its mounts, copied and ready to be attached; -1: none */
    unsigned long attributes; /* MS_NOSUID, MS_NODEV: put on it and on all mounts beneath */
    enum bind_kind kind;
    mode_t inside;         /* what the image has there; 0: nothing */
    char target[PATH_MAX]; /* in the container, without links; empty if it is not made */
};

struct binds {
    struct bind list[BINDS_MOST];
    size_t count;
};

/* Open the sources and copy their mounts.  In the mount namespace, while the host's root is still whole: a bind can be
   made of no other namespace's mount.  `home` and `cwd` may be NULL. */
void binds_open(struct binds *binds, const char *home, const char *cwd);

/* Decide which are made, and where, and make the mount points that the image lacks.  `etc` is
   where the image's /etc is: nothing is put over it. */
void binds_plan(struct binds *binds, uid_t caller, const char *etc);

/* Mount them into the new root. */
void binds_mount(const struct binds *binds);

#endif
