/* Mount files by loop devices, as root. */
#ifndef SHIFTER_LOOP_H
#define SHIFTER_LOOP_H

/* Mount the squashfs open on `file` at `target`: read-only, without set-uid programs and devices.
   The device goes with the mount. */
void loop_mount(int file, const char *target);

/* Mount the filesystem of this type that is in `file` at `target`, to be written to. */
void loop_mount_writable(int file, const char *type, const char *target);

#endif
