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
     "AppArmor restricts user namespaces on this node (root: install the profile "
     "docs/examples/apparmor-shifter, or sysctl kernel.apparmor_restrict_unprivileged_userns=0)"},
};

/* Whether a line of `path`, a file of proc(5), has `text` behind its `field`-th blank. */
static int has_line(const char *path, int field, const char *text)
{
    FILE *lines = fopen(path, "re");
    char *line = NULL;
    size_t size = 0;
    int found = 0;

    while (lines != NULL && !found && getline(&line, &size, lines) >= 0) {
        const char *at = line;

        for (int blank = 0; at != NULL && blank < field; blank++)
            at = (at = strpbrk(at, " \t")) != NULL ? at + 1 : NULL;
        found = at != NULL && strncmp(at, text, strlen(text)) == 0;
    }
    free(line);
    if (lines != NULL)
        fclose(lines);
    return found;
}

/* What forbids them without any sysctl. */
static const char *other_remedy(int error)
{
    if (access("/proc/self/ns/user", F_OK) < 0)
        return access("/proc/self/stat", F_OK) < 0
                   ? "is /proc mounted?"
                   : "the kernel of this node has no user namespaces (CONFIG_USER_NS)";
    if (error == ENOSPC || error == EUSERS)
        return "all that users may have are in use "
               "(root: sysctl user.max_user_namespaces=65536 user.max_mnt_namespaces=65536)";
    /* The kernel gives none to who sees only a part of the filesystem: what is / there is a
       directory, and no mount of his. */
    if (!has_line("/proc/self/mountinfo", 4, "/ "))
        return "users in a chroot get no user namespaces: start shifter outside of it, "
               "or let it be entered by pivot_root";
    if (has_line("/proc/self/status", 0, "Seccomp:\t2"))
        return "a seccomp filter is in force, as in a container: it must allow unshare, mount and "
               "pivot_root";
    return "the kernel must allow unprivileged user namespaces (CONFIG_USER_NS, no seccomp filter)";
}

static const char *remedy(int error)
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
    return other_remedy(error);
}

static _Noreturn void refused(const char *what)
{
    int error = errno;

    fail(error, remedy(error), "cannot %s", what);
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

/* The caller is root of the namespace that mounts the image.  Files that the image records as root's
   are then the caller's own files, which ssh(1) and other programs that demand "root or me" as the
   owner accept. */
void namespaces_enter_user(void)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();

    if (unshare(CLONE_NEWUSER) < 0)
        refused("create a user namespace");
    map(0, 0, uid, gid);
}

/* Below it the caller has the node's uid and gid again. */
void namespaces_enter_inner(uid_t uid, gid_t gid)
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
