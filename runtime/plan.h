/* What is to be done: the modules chosen, and what is mounted where, in order and on whose wish.

   Made of the command line, the environment and udiRoot.conf alone, by every rank; the store, the
   image and the sources of mounts are not looked at. */
#ifndef SHIFTER_PLAN_H
#define SHIFTER_PLAN_H

#include "args.h"
#include "config.h"
#include "file_id.h"

#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

enum wish_kind {
    WISH_STANDARD, /* in every container, if the node has it */
    WISH_HOME,     /* the caller's home and directory: where they can be seen, no more */
    WISH_CWD,
    WISH_BIND,  /* must be made */
    WISH_SPREAD, /* what is in a directory, one by one, so that others may stand beside */
    WISH_CACHE, /* nothing of the node's but memory */
};

enum asker { BY_STANDARD, BY_SITE, BY_MODULE, BY_USER };

struct wish {
    enum wish_kind kind;
    enum asker asker;
    const char *module; /* of BY_MODULE */
    unsigned line;      /* in udiRoot.conf, or 0 */
    const char *source, *target;
    unsigned long attributes; /* MS_RDONLY, MS_NOSUID, MS_NODEV, MS_PRIVATE, MS_SLAVE */
    uint64_t size;            /* of a cache */
    int optional;             /* no error if the source is missing */
    struct file_id id;        /* of the source, once binds_look has looked */
    const struct volume *volume; /* of BY_USER: as it was written */
};

/* A symbolic link of the node that the container has, too, if the image has nothing there. */
struct link {
    const char *path, *text;
};

struct plan {
    uid_t uid;            /* the caller's on the node */
    char store[PATH_MAX]; /* absolute */
    char cwd_text[PATH_MAX];
    const char *home, *cwd; /* or NULL */
    int cwd_error;          /* errno: why there is no cwd */
    struct file_id here;    /* the present directory */
    struct link *links;     /* by which the caller has come there */
    size_t link_count, link_room;
    int home_is_own;
    const struct config *config;
    const struct module **modules; /* chosen, ended by NULL */
    struct wish *wishes;           /* in the order in which they are made */
    size_t count, room;
    unsigned writable; /* as in struct job */
};

/* Put it together; ends the launch where the job asks for what cannot be. */
void plan_make(struct plan *plan, const struct job *job, const struct config *config);

/* Write what decides how the container's root looks, and which files its sources are now: launches
   with equal keys can share it. */
void plan_key(const struct plan *plan, FILE *out);

/* Who asked for a mount, in words for an error: "--volume", "the module 'x'", … */
const char *wish_origin(const struct wish *wish, const struct plan *plan);

/* Say on standard error what will be done. */
void plan_tell(const struct plan *plan);

#endif
