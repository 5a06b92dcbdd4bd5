/* Scripts of the site's that help to build a container's root: sitePreMountHook, sitePostMountHook,
   and roothooks of modules.

   They run once for each container, as its user, by the node's /bin/sh, with the mount rights of the
   container's own namespaces and with the root being built as their directory. */
#ifndef SHIFTER_SITE_HOOKS_H
#define SHIFTER_SITE_HOOKS_H

#include "plan.h"

/* Whether there is any. */
int site_hooks_are_asked(const struct plan *plan);

/* Whether there is one that sees mounts of siteFs. */
int site_hooks_see_mounts(const struct plan *plan);

/* Write what each script is now: launches that would run others do not share a container. */
void site_hooks_key(const struct plan *plan, FILE *out);

/* Run them in the skeleton; one that fails ends the launch. */
void site_hooks_before_mounts(const struct plan *plan);
void site_hooks_after_mounts(const struct plan *plan);
void site_hooks_of_modules(const struct plan *plan);

#endif
