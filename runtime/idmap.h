/* A user namespace of which only the mapping is used: to be given to mounts. */
#ifndef SHIFTER_IDMAP_H
#define SHIFTER_IDMAP_H

#include <sys/types.h>

/* Open one that maps the uid 0 to `uid` and the gid 0 to `gid`; -1 if this node allows none. */
int idmap_open(uid_t uid, gid_t gid);

#endif
