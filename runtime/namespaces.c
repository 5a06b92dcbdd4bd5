#include "namespaces.h"

#include "fail.h"
#include "files.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

/* The ways in which a node forbids user namespaces: a sysctl, and the value that does it. */
static const struct {
    const char *path;
    int forbidding;
    const char *remedy;
} sysctls[] = {
    {"/proc/sys/user/max_user_namespaces", 0,
     "user namespaces are off on this node (root: sysctl user.max_user_namespaces=65536)"},
    {"/proc/sys/kernel/unprivileged_userns_clone", 0,
     "user namespaces are off on this node (root: sysctl kernel.unprivileged_userns_clone=1)"},
    {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 1,
     "AppArmor restricts user namespaces on this node "
     "(root: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or a profile for shifter)"},
};

static const char *remedy(void)
{
    for (size_t at = 0; at < sizeof sysctls / sizeof sysctls[0]; at++) {
        char digits[16] = "";
        int fd = open(sysctls[at].path, O_RDONLY | O_CLOEXEC);
        ssize_t got;

        if (fd < 0)
            continue;
        got = read(fd, digits, sizeof digits - 1);
        close(fd);
        if (got > 0 && atoi(digits) == sysctls[at].forbidding)
            return sysctls[at].remedy;
    }
    return "the kernel must allow unprivileged user namespaces (CONFIG_USER_NS, no seccomp filter)";
}

static _Noreturn void refused(const char *what)
{
    int error = errno;

    fail(error, remedy(), "cannot %s", what);
}

static void write_proc(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        refused("map the caller into the user namespace");
    close(fd);
}

/* What the caller's uid and gid are called in the namespace that was made, and in the one above.
   setgroups must be denied before gid_map is written (user_namespaces(7)); supplementary groups
   stay in force, though they have no name inside. */
static void map(uid_t uid, gid_t gid, uid_t uid_above, gid_t gid_above)
{
    char uid_map[64], gid_map[64];

    snprintf(uid_map, sizeof uid_map, "%u %u 1", uid, uid_above);
    snprintf(gid_map, sizeof gid_map, "%u %u 1", gid, gid_above);
    write_proc("/proc/self/setgroups", "deny");
    write_proc("/proc/self/gid_map", gid_map);
    write_proc("/proc/self/uid_map", uid_map);
}

/* The caller's uid and gid map to themselves, so files keep their owners and no set-uid helper is
   needed. */
void namespaces_enter_user(int as_root)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();

    if (unshare(CLONE_NEWUSER) < 0)
        refused("create a user namespace");
    map(as_root ? 0 : uid, as_root ? 0 : gid, uid, gid);
}

void namespaces_leave_root(uid_t uid, gid_t gid)
{
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
        refused("create a user namespace in the container");
    map(uid, gid, 0, 0);
}

/* What the host mounts later still arrives (automounted homes); nothing of ours leaves. */
void namespaces_enter_mount(void)
{
    if (unshare(CLONE_NEWNS) < 0)
        refused("create a mount namespace");
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        refused("keep our mounts from the host");
}
