#include "root.h"

#include "fail.h"
#include "files.h"
#include "inside.h"
#include "skeleton.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Every host has it, and no part of it is ever bound into a container: so a tmpfs of ours over it
   is in nobody's way, and cannot be carried along by a recursive bind as one on /tmp would be. */
#define BUILDING_SITE "/etc"

void root_begin(void)
{
    MUST(mount("shifter", BUILDING_SITE, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0700"),
         "cannot mount a tmpfs to build the root");
    MUST(chdir(BUILDING_SITE), "cannot enter the tmpfs");
    MUST(mkdir(IMAGE_DIR, 0755), "cannot make a directory on the tmpfs");
    MUST(mkdir(SKELETON_DIR, 0755), "cannot make a directory on the tmpfs");
    MUST(mkdir(ROOT_DIR, 0755), "cannot make a directory on the tmpfs");
}

/* The text of a file in the image: as the description has it, which costs nothing, or read; what
   is no readable file there has none. */
static const char *image_text(const char *described, const char *path)
{
    char resolved[PATH_MAX], at[PATH_MAX];
    mode_t mode;
    char *text = NULL;

    if (described != NULL)
        return described;
    mode = inside_resolve(path, resolved);
    path_format(at, IMAGE_DIR "%s", resolved);
    if (S_ISREG(mode))
        text = text_read(at);
    return text != NULL ? text : must_copy("");
}

static void add_identity(const struct identity *who, const struct description *description,
                         const char *etc)
{
    char path[PATH_MAX];

    skeleton_directory(etc);
    path_format(path, "%s/passwd", etc);
    skeleton_file(path, identity_passwd(who, image_text(description->passwd, "/etc/passwd")));
    path_format(path, "%s/group", etc);
    skeleton_file(path, identity_group(who, image_text(description->group, "/etc/group")));
}

void root_build(struct binds *binds, const struct identity *who,
                const struct description *description)
{
    char etc[PATH_MAX];
    struct stat status;

    MUST(stat(IMAGE_DIR, &status), "cannot read the image");
    MUST(chmod(SKELETON_DIR, status.st_mode & 07777), "cannot set up the root");
    inside_resolve("/etc", etc);
    add_identity(who, description, etc);
    binds_plan(binds, who->uid, etc);
    /* Without userxattr overlayfs asks for trusted.* attributes, which the kernel refuses in a user
       namespace by itself: no question reaches the image's server. */
    if (mount("shifter", ROOT_DIR, "overlay", MS_RDONLY | MS_NOSUID | MS_NODEV,
              "lowerdir=" SKELETON_DIR ":" IMAGE_DIR) < 0)
        fail(errno,
             "the kernel must allow overlayfs in a user namespace: Linux 5.11 or newer "
             "(root: modprobe overlay)",
             "cannot lay the container's own files over the image");
    binds_mount(binds);
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
            fail(errno, NULL, "cannot change the root");
        MUST(mount(".", "/", NULL, MS_MOVE, NULL), "cannot move the new root");
        MUST(chroot("."), "cannot change the root");
    }
    MUST(chdir("/"), "cannot enter the new root");
}
