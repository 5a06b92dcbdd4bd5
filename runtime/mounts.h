/* What is mounted on this node. */
#ifndef SHIFTER_MOUNTS_H
#define SHIFTER_MOUNTS_H

/* A directory at or beneath `path` that something is mounted on, or in, when it is used; NULL: there is
   none. */
const char *mounts_find_automount(const char *path);

#endif
