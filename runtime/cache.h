/* The cache of a job on a node: a filesystem in a sparse file, as root makes it before the job.  The
   file has no name any more once it is mounted, and goes with the mount. */
#ifndef SHIFTER_CACHE_H
#define SHIFTER_CACHE_H

#include "volumes.h"

#include <sys/types.h>

/* Make the cache that `volume` asks for, of a file in `directory`, and mount it at `target`: without
   set-uid programs and devices, and the user's. */
void cache_mount(const struct volume *volume, const char *directory, uid_t uid, gid_t gid,
                 const char *target);

#endif
