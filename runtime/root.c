#include "root.h"

#include "fail.h"
#include "hook_mounts.h"
#include "inside.h"
#include "shifter_config.h"
#include "site_hooks.h"
#include "underlay.h"

#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Every host has it, and what of it is bound into a container has been copied before: so a tmpfs
   of ours over it is in nobody's way, and no recursive bind carries it along. */
#define BUILDING_SITE "/etc"

#define WRITTEN_DIR "written"

/* Hooks see the node as it is, /etc too, where many of them lie; none of them looks for terminals'
   drivers. */
static const char *const sites_for_hooks[] = {"/proc/tty", "/proc/driver"};

static int begin_at(const char *site)
{
    return mount("shifter", site, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0700") < 0 ? -1 : chdir(site);
}

/* A mount of its own, so that it can be moved to where a hook expects it, and so that the tmpfs
   itself is carried along by no recursive bind. */
static void make_movable(void)
{
    MUST(mount(SKELETON_DIR, SKELETON_DIR, NULL, MS_BIND, NULL), "cannot prepare a place for hooks");
    MUST(mount(NULL, ".", NULL, MS_UNBINDABLE, NULL), "cannot prepare a place for hooks");
}

void root_begin(const struct plan *plan)
{
    int for_hooks = plan != NULL && site_hooks_are_asked(plan), begun = -1;

    for (size_t at = 0; for_hooks && begun < 0 && at < sizeof sites_for_hooks / sizeof sites_for_hooks[0];
         at++)
        begun = begin_at(sites_for_hooks[at]);
    if (begun < 0)
        MUST(begin_at(BUILDING_SITE), "cannot mount a tmpfs to build the root");
    MUST(mkdir(IMAGE_DIR, 0755), "cannot make a directory on the tmpfs");
    MUST(mkdir(SKELETON_DIR, 0755), "cannot make a directory on the tmpfs");
    MUST(mkdir(ROOT_DIR, 0755), "cannot make a directory on the tmpfs");
    if (for_hooks)
        make_movable();
}

/* Where what is written in a container goes: memory, which is freed with it. */
static void make_written(unsigned percent)
{
    char size[32];

    snprintf(size, sizeof size, "mode=0700,size=%u%%", percent);
    MUST(mkdir(WRITTEN_DIR, 0700), "cannot make a directory on the tmpfs");
    MUST(mount("writable", WRITTEN_DIR, "tmpfs", MS_NOSUID | MS_NODEV, size),
         "cannot mount a tmpfs to be written to");
    MUST(mkdir(WRITTEN_DIR "/upper", 0755), "cannot make a directory on the tmpfs");
    MUST(mkdir(WRITTEN_DIR "/work", 0700), "cannot make a directory on the tmpfs");
}

#define LAYERS "lowerdir=" SKELETON_DIR ":" IMAGE_DIR
#define WRITTEN_LAYERS "upperdir=" WRITTEN_DIR "/upper,workdir=" WRITTEN_DIR "/work"

/* Files that are written are copied up, with their attributes: in a user namespace overlayfs keeps
   its own notes in those that users may set. */
static void lay_writable(unsigned percent)
{
    struct stat status;

    make_written(percent);
    MUST(stat(SKELETON_DIR, &status), "cannot set up the root");
    MUST(chmod(WRITTEN_DIR "/upper", status.st_mode & 07777), "cannot set up the root");
    if (mount("shifter", ROOT_DIR, "overlay", MS_NOSUID | MS_NODEV,
              LAYERS "," WRITTEN_LAYERS ",userxattr") < 0)
        fail(errno,
             "the kernel must allow overlayfs in a user namespace: Linux 5.11 or newer "
             "(root: modprobe overlay)",
             "cannot make the root writable");
    shifter_config_protect();
}

/* Without userxattr overlayfs asks for trusted.* attributes, which the kernel refuses in a user
   namespace by itself: no question reaches the image's server. */
static int lay_read_only(void)
{
    if (mount("shifter", ROOT_DIR, "overlay", MS_RDONLY | MS_NOSUID | MS_NODEV, LAYERS) == 0)
        return 0;
    /* Kernels before 5.11 do not let users, and some have no overlayfs. */
    if (errno != EPERM && errno != ENODEV && errno != EINVAL)
        fail(errno, NULL, "cannot lay the container's own files over the image");
    return -1;
}

/* The skeleton over the image, with what hooks have mounted in it. */
static void lay(const struct plan *plan, int has_hooks)
{
    if (plan->writable != 0) {
        lay_writable(plan->writable);
    } else if (lay_read_only() < 0) {
        underlay_build();
        return;
    }
    if (has_hooks)
        hook_mounts_carry();
}

/* Shifter's order: the site's mounts, its hook, the modules' mounts, their hooks.  Without hooks that
   would see them all mounts are made later, at once. */
static void run_later_hooks(struct binds *binds, const char *etc)
{
    if (!site_hooks_see_mounts(binds->plan))
        return;
    binds_mount_early(binds, etc, BY_SITE);
    site_hooks_after_mounts(binds->plan);
    binds_mount_early(binds, etc, BY_MODULE);
    site_hooks_of_modules(binds->plan);
}

void root_build(struct binds *binds, const struct etc *etc, const struct identity *who,
                const struct description *description, const char *id)
{
    int has_hooks = site_hooks_are_asked(binds->plan);
    char place[PATH_MAX];
    struct stat status;

    MUST(stat(IMAGE_DIR, &status), "cannot read the image");
    MUST(chmod(SKELETON_DIR, status.st_mode & 07777), "cannot set up the root");
    if (has_hooks) {
        site_hooks_before_mounts(binds->plan);
        inside_see_skeleton();
    }
    inside_resolve("/etc", place);
    etc_write(etc, who, description, place);
    shifter_config_write(binds->plan, id, who->name);
    binds_plan(binds, place);
    run_later_hooks(binds, place);
    etc_hide(place);
    lay(binds->plan, has_hooks);
    binds_mount(binds, place);
}

void root_enter(void)
{
    MUST(chdir(ROOT_DIR), "cannot enter the new root");
    /* The old root comes to lie on the new one, and is taken off again with all its mounts. */
    if (syscall(SYS_pivot_root, ".", ".") == 0) {
        MUST(umount2(".", MNT_DETACH), "cannot leave the host's root");
    } else {
        /* A node that runs from its initramfs has a root that cannot be pivoted. */
        if (errno != EINVAL)
            fail(errno, "is this a container? its seccomp filter must allow pivot_root",
                 "cannot change the root");
        MUST(mount(".", "/", NULL, MS_MOVE, NULL), "cannot move the new root");
        MUST(chroot("."), "cannot change the root");
    }
    MUST(chdir("/"), "cannot enter the new root");
}
