#include "loop.h"

#include "fail.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

enum { TRIES = 64, BLOCK = 4096 };

/* What is attached how: an image, in blocks of its own size, or what is written to. */
enum access { READ_ONLY, WRITABLE };

/* Kernels before 5.8 have no LOOP_CONFIGURE. */
static int configure_slowly(int device, int file, const struct loop_info64 *info)
{
    if (ioctl(device, LOOP_SET_FD, file) < 0)
        return -1;
    if (ioctl(device, LOOP_SET_STATUS64, info) == 0)
        return 0;
    ioctl(device, LOOP_CLR_FD, 0);
    return -1;
}

static int configure(int device, int file, enum access access)
{
    struct loop_config config = {.fd = (unsigned)file};

    config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    if (access == READ_ONLY) {
        config.info.lo_flags |= LO_FLAGS_READ_ONLY;
        config.block_size = BLOCK;
    }
    if (ioctl(device, LOOP_CONFIGURE, &config) == 0)
        return 0;
    return errno == EINVAL || errno == ENOTTY ? configure_slowly(device, file, &config.info) : -1;
}

/* Attach the file to a free device, which others may take before us. */
static int attach(int file, enum access access, char device[32])
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);

    if (control < 0)
        fail(errno, "root: modprobe loop", "cannot open '/dev/loop-control'");
    for (int try = 0; try < TRIES; try++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE), fd;

        MUST(number, "cannot get a loop device");
        snprintf(device, 32, "/dev/loop%d", number);
        fd = open(device, (access == WRITABLE ? O_RDWR : O_RDONLY) | O_CLOEXEC);
        if (fd < 0)
            fail(errno, NULL, "cannot open '%s'", device);
        if (configure(fd, file, access) == 0) {
            close(control);
            return fd;
        }
        if (errno != EBUSY)
            fail(errno, NULL, "cannot use '%s'", device);
        close(fd);
    }
    fail(EBUSY, NULL, "cannot get a loop device");
}

void loop_mount(int file, const char *target)
{
    const unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV;
    char device[32];
    int fd = attach(file, READ_ONLY, device);

    /* With all processors, where the kernel can (6.2). */
    if (mount(device, target, "squashfs", flags, "threads=multi") < 0 &&
        mount(device, target, "squashfs", flags, NULL) < 0)
        fail(errno, "root: modprobe squashfs", "cannot mount the image at '%s'", target);
    close(fd);
}

void loop_mount_writable(int file, const char *type, const char *target)
{
    char device[32];
    int fd = attach(file, WRITABLE, device);

    if (mount(device, target, type, MS_NOSUID | MS_NODEV, NULL) < 0)
        fail(errno, hint("root: modprobe %s", type), "cannot mount a cache at '%s'", target);
    close(fd);
}
