/* The caches of a job on a node: filesystems in files without a name, as root makes them before the
   job.  A file goes with its mount, however the job or we end. */
#ifndef SHIFTER_CACHE_H
#define SHIFTER_CACHE_H

#include "volumes.h"

#include <sys/types.h>

/* Where caches are made, and by what: looked at once, and then known by descriptors, so that no
   name of theirs can be given to something else. */
struct cache_site {
    int directory;
    int mkfs_xfs; /* -1: it is not there, or the system's is used */
    const struct cache_rules *rules;
};

/* Open both; what others than root can change ends the prologue. */
void cache_site_open(struct cache_site *site, const struct cache_rules *rules);

/* Make the cache that `volume` asks for, and mount it at `name` in the directory open on `place`:
   without set-uid programs and devices, and the user's. */
void cache_mount(const struct cache_site *site, const struct volume *volume, int place,
                 const char *name, uid_t uid, gid_t gid);

#endif
