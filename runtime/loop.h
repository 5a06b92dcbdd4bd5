/* Mount an image file by a loop device, as root. */
#ifndef SHIFTER_LOOP_H
#define SHIFTER_LOOP_H

/* Mount the squashfs open on `file` at `target`: read-only, without set-uid programs and devices.
   The device goes with the mount. */
void loop_mount(int file, const char *target);

#endif
