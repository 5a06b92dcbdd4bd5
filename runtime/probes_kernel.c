#include "probes_kernel.h"

#include "blank.h"
#include "fail.h"
#include "image.h"
#include "inside.h"
#include "namespaces.h"
#include "root.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

void try_kernel(const struct visit *visit)
{
    struct utsname name;

    (void)visit;
    MUST(uname(&name), "cannot ask the kernel for its version");
    printf("%s %s %s\n", name.sysname, name.release, name.machine);
}

void try_user(const struct visit *visit)
{
    (void)visit;
    namespaces_enter_user();
}

void try_mount(const struct visit *visit)
{
    (void)visit;
    namespaces_enter_user();
    namespaces_enter_mount();
}

/* The kernel mounts before anybody serves. */
void try_fuse(const struct visit *visit)
{
    struct image image;

    (void)visit;
    namespaces_enter_user();
    image_open(&image, 0, "none", 0, blank_image());
    namespaces_enter_mount();
    root_begin(NULL);
    image_mount(&image, IMAGE_DIR);
}

/* What newer kernels have, and what is done without it. */
static const struct {
    const char *name;
    long number;
    const char *since, *without;
} calls[] = {
    {"close_range", 436, "5.9", "descriptors are closed one by one"},
    {"openat2", 437, "5.6", "volumes in volumes are not followed over links"},
    {"open_tree", 428, "5.2", "mounts are made by older calls"},
    {"move_mount", 429, "5.2", "mounts are made by older calls"},
    {"mount_setattr", 442, "5.12", "mounts are made by older calls"},
};

/* With arguments that none of them takes.  A seccomp filter may say EPERM to what it does not know;
   the kernel itself does so to who may not mount, so this is done by one who may. */
void try_calls(const struct visit *visit)
{
    (void)visit;
    namespaces_enter_user();
    namespaces_enter_mount();
    for (size_t at = 0; at < sizeof calls / sizeof calls[0]; at++)
        if (syscall(calls[at].number, -1, 0, -1, -1, -1) < 0 &&
            (errno == ENOSYS || errno == EPERM))
            warn("no %s (Linux %s, or a seccomp filter): %s", calls[at].name, calls[at].since,
                 calls[at].without);
}

/* Hold namespaces of one's own until the other end of the pipe is closed. */
static _Noreturn void hold_namespaces(int ready, int over)
{
    char byte = 'r';

    namespaces_enter_user();
    namespaces_enter_mount();
    if (write(ready, &byte, 1) == 1 && read(over, &byte, 1) < 0)
        _exit(EXIT_SHIFTER);
    _exit(EXIT_SUCCESS);
}

static int open_namespace(pid_t pid, const char *kind)
{
    char path[64];
    int fd;

    snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, kind);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        fail(errno, "is /proc mounted, and not hidden from users?", "cannot open '%s'", path);
    return fd;
}

/* As a second rank does. */
void try_join(const struct visit *visit)
{
    int ready[2], over[2];
    struct namespaces namespaces;
    char byte;
    pid_t child;

    (void)visit;
    MUST(pipe2(ready, O_CLOEXEC), "cannot try to join");
    MUST(pipe2(over, O_CLOEXEC), "cannot try to join");
    child = fork();
    MUST(child, "cannot try to join");
    if (child == 0) {
        close(over[1]);
        hold_namespaces(ready[1], over[0]);
    }
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1)
        exit(EXIT_SHIFTER);
    namespaces.user = open_namespace(child, "user");
    namespaces.mount = open_namespace(child, "mnt");
    container_join(&namespaces);
}

void try_watch(const struct visit *visit)
{
    int watch;

    (void)visit;
    namespaces_enter_user();
    watch = inotify_init1(IN_CLOEXEC);
    if (watch < 0 || inotify_add_watch(watch, "/", IN_DELETE_SELF) < 0)
        fail(errno,
             "root: sysctl fs.inotify.max_user_instances=1024 fs.inotify.max_user_watches=65536",
             "cannot watch for the end of a container: its keeper ends early, or with its server");
}
