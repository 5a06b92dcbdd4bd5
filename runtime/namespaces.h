/* A user namespace and a mount namespace of our own: power over our mounts, and over nothing else. */
#ifndef SHIFTER_NAMESPACES_H
#define SHIFTER_NAMESPACES_H

#include <sys/types.h>

/* The outer ones, which own the container's mounts.  The caller is root in them: files of root in an
   image belong to the caller (and overlayfs copies up no file whose owner is not mapped). */
void namespaces_enter_user(void);
void namespaces_enter_mount(void);

/* From inside of the new root: others for the applications, below these.  In them the caller has
   its own uid and gid, and no power over the mounts.  The image's server and the keeper stay above,
   out of the applications' reach, and with them the host's root that they see. */
void namespaces_enter_inner(uid_t uid, gid_t gid);

#endif
