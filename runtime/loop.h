/* Mount files by loop devices, as root.  A mount is made where no program sees it, and put in its
   place when it is ready; the device goes with it. */
#ifndef SHIFTER_LOOP_H
#define SHIFTER_LOOP_H

#include <sys/types.h>

/* Mount the squashfs open on `file` at `name`, in the directory open on `place`: read-only, without
   set-uid programs and devices.  Files of root in it belong to `uid` and `gid` where the kernel can
   map the owners of a squashfs (Linux 6.2); before that they belong to root. */
void loop_mount_image(int file, int place, const char *name, uid_t uid, gid_t gid);

/* Mount the filesystem of this type that is in `file` there, to be written to; its directory
   becomes that of `uid` and `gid`. */
void loop_mount_cache(int file, const char *type, int place, const char *name, uid_t uid,
                      gid_t gid);

/* Give the directory of a cache to `uid` and `gid`, and close it. */
void loop_give_cache(int directory, uid_t uid, gid_t gid);

#endif
