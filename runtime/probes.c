#include "probes.h"

#include "batch.h"
#include "blank.h"
#include "check.h"
#include "config.h"
#include "fail.h"
#include "files.h"
#include "image.h"
#include "index.h"
#include "inside.h"
#include "namespaces.h"
#include "privileges.h"
#include "resolve.h"
#include "root.h"
#include "server.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

enum { WRITABLE_DEFAULT = 50 };

static void try_kernel(const struct visit *visit)
{
    struct utsname name;

    (void)visit;
    MUST(uname(&name), "cannot ask the kernel for its version");
    printf("%s %s %s\n", name.sysname, name.release, name.machine);
}

static void try_user(const struct visit *visit)
{
    (void)visit;
    namespaces_enter_user(0);
}

static void try_mount(const struct visit *visit)
{
    (void)visit;
    namespaces_enter_user(0);
    namespaces_enter_mount();
}

static int open_blank(void)
{
    int file = blank_image();

    MUST(file, "cannot make a small image in memory");
    return file;
}

/* The kernel mounts before anybody serves. */
static void try_fuse(const struct visit *visit)
{
    struct image image;

    (void)visit;
    namespaces_enter_user(0);
    image_open(&image, open_blank());
    namespaces_enter_mount();
    root_begin();
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
static void try_calls(const struct visit *visit)
{
    (void)visit;
    namespaces_enter_user(0);
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

    namespaces_enter_user(0);
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
static void try_join(const struct visit *visit)
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

static void try_watch(const struct visit *visit)
{
    int watch;

    (void)visit;
    namespaces_enter_user(0);
    watch = inotify_init1(IN_CLOEXEC);
    if (watch < 0 || inotify_add_watch(watch, "/", IN_DELETE_SELF) < 0)
        fail(errno,
             "root: sysctl fs.inotify.max_user_instances=1024 fs.inotify.max_user_watches=65536",
             "cannot watch for the end of a container, so its keeper ends early or with its server");
}

static void try_node(const struct visit *visit)
{
    struct node node;

    (void)visit;
    node_open(&node);
    if (node.directory < 0) {
        warn("no directory of yours can be made on this node: every launch is alone");
        return;
    }
    if (path_within(node.path, "/tmp"))
        warn("'/run/shifter_lite' and '/dev/shm' cannot be used, or somebody else has taken the "
             "name: '%s' is", node.path);
    printf("'%s'\n", node.path);
    /* Only if it is empty. */
    rmdir(node.path);
}

static void try_batch(const struct visit *visit)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);

    (void)visit;
    if (out == NULL)
        fail(errno, NULL, "cannot go on");
    batch_write(out);
    if (fclose(out) != 0)
        fail(errno, NULL, "cannot go on");
    printf("%s%s", length > 0 ? text : "none", batch_is_step() ? "a step of it\n" : "");
}

static void try_config(const struct visit *visit)
{
    struct config config = {0};

    (void)visit;
    config_read(&config);
    if (config.path != NULL)
        printf("'%s'\n", config.path);
    check_config(NULL);
}

/* What a launch would do; the image is not asked for. */
static void read_plan(const struct job *job, struct config *config, struct plan *plan)
{
    memset(config, 0, sizeof *config);
    config_read(config);
    plan_make(plan, job, config);
}

static void try_store(const struct visit *visit)
{
    struct config config;
    struct plan plan;
    struct resolution found;
    uint64_t entries;

    read_plan(visit->job, &config, &plan);
    resolve_begin(&found, visit->job, plan.store);
    resolve_index(&found);
    if (index_count(found.index, &entries) < 0)
        fail(errno, "is the filesystem of the store well on this node?",
             "cannot read the index of the store '%s'", found.store);
    printf("'%s': generation %" PRIu64 ", %" PRIu64 " entries\n", found.store,
           found.newest.number, entries);
}

static void make(const struct visit *visit, const struct job *job, int file)
{
    struct config config;
    struct plan plan;
    struct container container = {.node = {.directory = -1}};
    struct identity who;

    read_plan(job, &config, &plan);
    container_alone(&container);
    identity_begin(&who);
    visit->make(&container, file, &who, &plan);
    MUST(privileges_drop(), "cannot drop privileges");
}

static void try_container(const struct visit *visit)
{
    struct job job = *visit->job;
    struct statfs root;

    job.writable = 0;
    make(visit, &job, open_blank());
    if (statfs("/", &root) == 0 && root.f_type != OVERLAYFS_SUPER_MAGIC)
        warn("users get no overlayfs here, so roots are made of many mounts, which takes longer "
             "(Linux 5.11 or newer; root: modprobe overlay)");
}

static void try_writable(const struct visit *visit)
{
    struct job job = *visit->job;
    struct sysinfo memory;

    if (job.writable == 0)
        job.writable = WRITABLE_DEFAULT;
    make(visit, &job, open_blank());
    MUST(sysinfo(&memory), "cannot ask how much memory there is");
    printf("%u%% of memory, %ju MiB\n", job.writable,
           (uintmax_t)memory.totalram * memory.mem_unit / 100 * job.writable >> 20);
}

static void try_foreign(const struct visit *visit)
{
    struct server server;

    (void)visit;
    server_find_program(&server);
    printf("'%s'\n", server.program);
}

static void try_image(const struct visit *visit)
{
    struct config config;
    struct plan plan;
    struct resolution found;
    struct node none = {.directory = -1};
    int file = -1;

    if (visit->job->image == NULL) {
        printf("not tried; --image=NAME tries one\n");
        return;
    }
    read_plan(visit->job, &config, &plan);
    resolve_begin(&found, visit->job, plan.store);
    while (file < 0) {
        resolve(&found, &none);
        file = resolve_open(&found);
    }
    resolve_end(&found);
    make(visit, visit->job, file);
    printf("'%s' is %s\n", visit->job->image, found.record.id);
}

#define USER "user namespaces"
#define CONTAINERS "containers"
#define STORE "store"

const struct probe probes[] = {
    {"kernel", NULL, 0, try_kernel},
    {USER, NULL, 1, try_user},
    {"mount namespaces", USER, 1, try_mount},
    {"FUSE", "mount namespaces", 1, try_fuse},
    {"newer calls", "mount namespaces", 0, try_calls},
    {"joining", "mount namespaces", 1, try_join},
    {"inotify", USER, 0, try_watch},
    {"node directory", NULL, 0, try_node},
    {"batch job", NULL, 0, try_batch},
    {"udiRoot.conf", NULL, 1, try_config},
    {CONTAINERS, "FUSE", 1, try_container},
    {"writable root", CONTAINERS, 0, try_writable},
    {"foreign images", NULL, 0, try_foreign},
    {STORE, "udiRoot.conf", 1, try_store},
    {"image", STORE, 1, try_image},
};
const size_t probe_count = sizeof probes / sizeof probes[0];
