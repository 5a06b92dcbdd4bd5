/* Mounts, copied with all that is mounted beneath, restricted, and put somewhere else.

   A copy is made, and changed, before it is in any place, so that nobody sees it unrestricted;
   kernels before 5.2 (5.12) cannot, and there it is bound first and restricted then. */
#ifndef SHIFTER_TREES_H
#define SHIFTER_TREES_H

#include <limits.h>
#include <stddef.h>

/* Copy what is mounted at `source` and beneath, with `attributes` (MS_RDONLY, MS_NOSUID, MS_NODEV,
   MS_PRIVATE, MS_SLAVE) on all of it; -1 where the kernel cannot. */
int tree_copy(int source, unsigned long attributes);

/* Put it, or if it is -1 what is at `source`, on `target`, which is opened; -1 and errno. */
int tree_attach(int tree, int source, int target);

/* Add the attributes to the mount that is open, and to all beneath it. */
void tree_restrict(int mounted, unsigned long attributes);

/* Where what a line of /proc/self/mountinfo names is mounted: its fifth field; 0 if it is too long. */
int mountinfo_place(const char *line, char place[PATH_MAX]);

/* The path of what is open; 0, or -1 and errno. */
int path_of(int fd, char *path, size_t size);

#endif
