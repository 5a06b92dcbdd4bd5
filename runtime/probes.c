#include "probes.h"

#include "batch.h"
#include "binds.h"
#include "blank.h"
#include "check.h"
#include "config.h"
#include "fail.h"
#include "files.h"
#include "index.h"
#include "privileges.h"
#include "probes_kernel.h"
#include "resolve.h"
#include "server.h"

#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

enum { WRITABLE_DEFAULT = 50 };

/* What no launch can change. */
static void try_identity(const struct visit *visit)
{
    struct identity who;
    size_t others = 0;

    (void)visit;
    identity_begin(&who);
    for (size_t at = 0; at < who.group_count; at++)
        others += who.groups[at] != who.gid ? 1 : 0;
    printf("one of each in a container (docs/differences.md)\n");
    if (others > 0)
        printf("%zu other %s of yours in force there, and shown as nogroup\n", others,
               others == 1 ? "group is" : "groups are");
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
    binds_look(&plan);
    container_alone(&container);
    identity_begin(&who);
    visit->make(&container, "none", "none", file, &who, &plan);
    container_ready(&container);
    MUST(privileges_drop(), "cannot drop privileges");
}

static void try_container(const struct visit *visit)
{
    struct job job = *visit->job;
    struct statfs root;

    job.writable = 0;
    make(visit, &job, blank_image());
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
    make(visit, &job, blank_image());
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
    {"users and groups", USER, 0, try_identity},
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
