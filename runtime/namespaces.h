/* A user namespace and a mount namespace of our own: power over our mounts, and over nothing else. */
#ifndef SHIFTER_NAMESPACES_H
#define SHIFTER_NAMESPACES_H

#include <sys/types.h>

/* `as_root`: the caller is called root in it, so that what is root's in the image is the caller's,
   who may then write it (overlayfs copies no file whose owner has no name). */
void namespaces_enter_user(int as_root);
void namespaces_enter_mount(void);

/* From inside of the new root: namespaces in which the caller has his own numbers again, and no
   power over the mounts. */
void namespaces_leave_root(uid_t uid, gid_t gid);

#endif
