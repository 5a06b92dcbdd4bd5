/* Where the caller's home and present directory are in the container. */
#ifndef SHIFTER_PRESENT_H
#define SHIFTER_PRESENT_H

#include "plan.h"

/* The name under which what is at `path` on the node has to be mounted, so that `path` leads to it in
   the container; NULL: the mounts that are planned so far show it.  Links in those mounts are followed
   as the container will follow them. */
const char *present_target(const struct plan *plan, const char *path);

/* Choose by which name the container's processes reach the caller's present directory, and plan the
   links by which its shell reached it, as far as no mount shows them.  Returns whether a mount shows
   the directory already. */
int present_choose(struct plan *plan);

/* Whether a mount that was asked for shows something at `path`, so that it is meant to be there. */
int present_is_covered(const struct plan *plan, const char *path);

#endif
