/* A user namespace and a mount namespace of our own: power over our mounts, and over nothing else. */
#ifndef SHIFTER_NAMESPACES_H
#define SHIFTER_NAMESPACES_H

#include <sys/types.h>

/* `as_root`: the caller is called root in it, so that what is root's in the image is the caller's,
   who may then write it (overlayfs copies no file whose owner has no name). */
void namespaces_enter_user(int as_root);
void namespaces_enter_mount(void);

/* From inside of the new root: others for the applications, below these.  In them the caller has
   his own numbers, and no power over the mounts; and the image's server and the keeper, which are
   above, are out of reach, and with them the host's root that they see. */
void namespaces_enter_inner(uid_t uid, gid_t gid, int was_root);

#endif
