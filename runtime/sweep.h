/* What removes containers' files from the node directory. */
#ifndef SHIFTER_SWEEP_H
#define SHIFTER_SWEEP_H

#include "node.h"

#include <sys/types.h>

/* Remove the file of a container that has ended, or was never made, unless it is another's by now:
   ours is the one of this founder. */
void sweep_own(const struct node *node, const char *name, pid_t founder);

/* Remove the files of all containers in which nobody lives, but not `except`. */
void sweep_dead(const struct node *node, const char *except);

#endif
