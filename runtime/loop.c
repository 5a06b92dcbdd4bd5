#include "loop.h"

#include "fail.h"
#include "files.h"
#include "idmap.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
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

/* struct mount_attr of linux/mount.h, which older headers lack, as they lack the names below. */
struct mount_attributes {
    uint64_t set, clear, propagation, user_namespace;
};

#ifndef SYS_move_mount
#define SYS_move_mount 429
#define SYS_fsopen 430
#define SYS_fsconfig 431
#define SYS_fsmount 432
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

enum {
    SET_FLAG = 0,
    SET_STRING = 1,
    CREATE = 6,
    CLOSE_AT_EXECUTE = 1,
    ATTRIBUTE_RDONLY = 1,
    ATTRIBUTE_NOSUID = 2,
    ATTRIBUTE_NODEV = 4,
    ATTRIBUTE_IDMAP = 0x100000,
    DESCRIPTOR_ITSELF = 0x1000,
    MOVE_FROM_DESCRIPTOR = 4,
};

static int configure_filesystem(int context, unsigned command, const char *key, const char *value)
{
    return (int)syscall(SYS_fsconfig, context, command, key, value, 0);
}

/* A mount of the device that is nowhere yet; -1 if there is none, as before Linux 5.2. */
static int mount_nowhere(const char *device, const char *type, enum access access,
                         const char *threads)
{
    int context = (int)syscall(SYS_fsopen, type, CLOSE_AT_EXECUTE), mounted = -1;
    unsigned attributes = ATTRIBUTE_NOSUID | ATTRIBUTE_NODEV;

    if (context < 0)
        return -1;
    if (access == READ_ONLY)
        attributes |= ATTRIBUTE_RDONLY;
    if (configure_filesystem(context, SET_STRING, "source", device) == 0 &&
        (access == WRITABLE || configure_filesystem(context, SET_FLAG, "ro", NULL) == 0) &&
        (threads == NULL || configure_filesystem(context, SET_STRING, "threads", threads) == 0) &&
        configure_filesystem(context, CREATE, NULL, NULL) == 0)
        mounted = (int)syscall(SYS_fsmount, context, CLOSE_AT_EXECUTE, attributes);
    close(context);
    return mounted;
}

/* Let root's files belong to the user; a kernel that cannot leaves them to root. */
static void map_owners(int mounted, uid_t uid, gid_t gid)
{
    struct mount_attributes change = {ATTRIBUTE_IDMAP, 0, 0, 0};
    int owners = uid != 0 || gid != 0 ? idmap_open(uid, gid) : -1;

    if (owners < 0)
        return;
    change.user_namespace = (uint64_t)owners;
    syscall(SYS_mount_setattr, mounted, "", DESCRIPTOR_ITSELF, &change, sizeof change);
    close(owners);
}

static int put_at(int mounted, int place, const char *name)
{
    return (int)syscall(SYS_move_mount, mounted, "", place, name, MOVE_FROM_DESCRIPTOR);
}

/* The older way, which also tells why there is no mount. */
static int mount_at(const char *device, const char *type, int place, const char *name,
                    enum access access)
{
    char path[PATH_MAX];

    path_format(path, "/proc/self/fd/%d/%s", place, name);
    return mount(device, path, type, MS_NOSUID | MS_NODEV | (access == READ_ONLY ? MS_RDONLY : 0),
                 NULL);
}

void loop_mount_image(int file, int place, const char *name, uid_t uid, gid_t gid)
{
    char device[32];
    int fd = attach(file, READ_ONLY, device);
    /* With all processors, where the kernel can (6.2). */
    int mounted = mount_nowhere(device, "squashfs", READ_ONLY, "multi");

    if (mounted < 0)
        mounted = mount_nowhere(device, "squashfs", READ_ONLY, NULL);
    if (mounted >= 0)
        map_owners(mounted, uid, gid);
    if (mounted >= 0 ? put_at(mounted, place, name) < 0
                     : mount_at(device, "squashfs", place, name, READ_ONLY) < 0)
        fail(errno, "root: modprobe squashfs; shifter-admin verify", "cannot mount the image");
    close(fd);
}

void loop_give_cache(int directory, uid_t uid, gid_t gid)
{
    MUST(directory, "cannot open a cache");
    unlinkat(directory, "lost+found", AT_REMOVEDIR);
    MUST(fchmod(directory, 0755), "cannot give a cache to the user");
    MUST(fchown(directory, uid, gid), "cannot give a cache to the user");
    close(directory);
}

void loop_mount_cache(int file, const char *type, int place, const char *name, uid_t uid,
                      gid_t gid)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    char device[32];
    int fd = attach(file, WRITABLE, device);
    int mounted = mount_nowhere(device, type, WRITABLE, NULL);

    if (mounted >= 0) {
        loop_give_cache(openat(mounted, ".", flags), uid, gid);
        MUST(put_at(mounted, place, name), "cannot mount a cache");
    } else {
        if (mount_at(device, type, place, name, WRITABLE) < 0)
            fail(errno, hint("root: modprobe %s", type), "cannot mount a cache of the type '%s'",
                 type);
        loop_give_cache(openat(place, name, flags), uid, gid);
    }
    close(fd);
}
