/* The container's root: the image, with what it lacks laid over it and the host's parts bound in. */
#ifndef SHIFTER_ROOT_H
#define SHIFTER_ROOT_H

#include "binds.h"
#include "description.h"
#include "etc.h"
#include "identity.h"

/* Make the place where the root is built, and go there; after binds_open.  `plan` may be NULL. */
void root_begin(const struct plan *plan);

/* Build it, once the image, which is called `id`, is mounted. */
void root_build(struct binds *binds, const struct etc *etc, const struct identity *who,
                const struct description *description, const char *id);

/* Make it the root, and nothing of the host's reachable. */
void root_enter(void);

#endif
