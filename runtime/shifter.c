/* shifter: run a command in an image.  Read main: it is the order of things. */
#include "args.h"
#include "batch.h"
#include "binds.h"
#include "check.h"
#include "command.h"
#include "config.h"
#include "container.h"
#include "description.h"
#include "detached.h"
#include "doctor.h"
#include "dry_run.h"
#include "envfile.h"
#include "environment.h"
#include "etc.h"
#include "fail.h"
#include "helper.h"
#include "hooks.h"
#include "identity.h"
#include "image.h"
#include "inside.h"
#include "keeper.h"
#include "rlimits.h"
#include "namespaces.h"
#include "node.h"
#include "plan.h"
#include "privileges.h"
#include "requires.h"
#include "resolve.h"
#include "root.h"
#include "site_hooks.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Descriptors of ours must not become somebody's standard streams, nor error messages go into one
   of them; what fills the gaps is closed again at execve. */
static void fill_standard_streams(void)
{
    int fd;

    do
        MUST(fd = open("/dev/null", O_RDWR | O_CLOEXEC), "cannot open '/dev/null'");
    while (fd <= STDERR_FILENO);
    close(fd);
}

/* Shifter's own launcher is set-uid root; ours needs no privilege, and must not be trusted with it. */
static void refuse_privilege(void)
{
    if (getuid() != geteuid() || getgid() != getegid())
        fail(0, "root: chmod u-s,g-s its program file", "shifter must not be set-uid or set-gid");
}

/* Where the caller is, and what he sees there: who is elsewhere cannot share a container. */
static void write_place(FILE *key, const char *path)
{
    struct stat status;

    if (stat(path, &status) == 0)
        fprintf(key, "%s=%ju:%ju\n", path, (uintmax_t)status.st_dev, (uintmax_t)status.st_ino);
}

/* What all who share a container have in common. */
static char *make_key(const struct resolution *found, const struct plan *plan)
{
    char *text = NULL;
    size_t length = 0;
    FILE *key = open_memstream(&text, &length);

    if (key == NULL)
        fail(errno, NULL, "cannot go on");
    fprintf(key, "version=" VERSION "\nuid=%u\ngid=%u\n", geteuid(), getegid());
    write_place(key, "/proc/self/ns/user");
    write_place(key, "/proc/self/ns/mnt");
    write_place(key, "/");
    batch_write(key);
    fprintf(key, "store=%s\nid=%s\nconfig=%016" PRIx64 "\n", found->store, found->record.id,
            plan->config->text_hash);
    rlimits_write(key);
    plan_key(plan, key);
    etc_key(plan->config, key);
    site_hooks_key(plan, key);
    if (fclose(key) != 0)
        fail(errno, NULL, "cannot go on");
    return text;
}

/* Whether the image's programs can use what the modules bring. */
static void check_modules(const struct module *const *modules, const char *const *libs)
{
    for (; *modules != NULL; modules++)
        requires_check(libs, (*modules)->name, (const char *const *)(*modules)->requires.list);
}

/* Make the container of the image `id`, which the caller calls `request`, and enter it. */
static void make_container(struct container *container, const char *id, const char *request,
                           int file, struct identity *who, const struct plan *plan)
{
    struct etc etc;
    struct image image;
    struct description description;
    struct keeper *keeper = &container->keeper;
    struct binds binds;

    rlimits_lift_descriptors();
    description_read(&description, file);
    check_modules(plan->modules, description.libs);
    binds_find(plan);
    etc_name_sources(who, plan->config);
    identity_read(who);
    etc_read(&etc, plan->config, who);
    namespaces_enter_user();
    /* What is written to must belong to the caller, and in a mount of root's nothing does. */
    image_open(&image, plan->uid, id, plan->writable == 0, file);
    keeper_start(keeper, &container->node, container->name, &image, request);
    image_started(&image);
    if (image.server.fuse >= 0)
        rlimits_warn();
    namespaces_enter_mount();
    binds_open(&binds, plan);
    if (binds.is_changed)
        container_hide(container);
    root_begin(plan);
    keeper_watch(keeper, ".");
    image_mount(&image, IMAGE_DIR);
    if (image_wait(&image, IMAGE_DIR) < 0) {
        int error = errno;

        /* There may be none that could. */
        keeper_started(keeper);
        image_fail(&image, error);
    }
    root_build(&binds, &etc, who, &description, id);
    root_enter();
    namespaces_enter_inner(who->uid, who->gid);
    keeper_hold(keeper);
}

/* What is asked for, and what comes of it. */
struct launch {
    struct job job;
    struct config config;
    struct plan plan;
    struct words variables; /* of --env-file */
    struct resolution found;
    struct environment environment;
    char **command;
};

/* Say what the application is, now that it is known of which image. */
static void choose(struct launch *launch)
{
    environment_build(&launch->environment,
                      &(struct environment_sources){environ, &launch->job, &launch->found.record,
                                                    &launch->variables, launch->plan.modules,
                                                    &launch->config});
    launch->command = command_choose(&launch->job, &launch->found.record);
}

/* Enter the container that was found; 0 if that took so long that names have come to lead to other
   files: then it shows what was there before. */
static int join(struct container *container, struct resolution *found, const struct plan *plan)
{
    resolve_end(found);
    if (container->has_waited && binds_have_changed(plan)) {
        container_pass(&container->namespaces);
        return 0;
    }
    if (container->node.directory >= 0)
        close(container->node.directory);
    container_join(&container->namespaces);
    return 1;
}

/* Join the container of this image and these options, or be the first.  From then on the image
   leads the way, and others in the container may look in: nothing of ours stays open. */
static void enter_container(struct launch *launch)
{
    struct plan *plan = &launch->plan;
    struct resolution *found = &launch->found;
    struct container container;
    struct identity who;
    struct node node = {.directory = -1};
    /* What one launch has written, another may see only if both are of one step. */
    int is_shared = plan->writable == 0 || batch_is_step();
    int file = -1;

    /* Nobody would remove what is left there for others. */
    if (is_shared)
        node_open(&node);
    node_close_at_exit(&node);
    while (file < 0) {
        char *key;

        resolve(found, &node);
        choose(launch);
        binds_look(plan);
        key = make_key(found, plan);
        if (container_find(&container, &node, key, strlen(key)) == CONTAINER_JOIN) {
            if (!join(&container, found, plan))
                continue;
            node_close_at_exit(NULL);
            return;
        }
        identity_begin(&who);
        if (resolve_identity(found, &who) == 0)
            file = resolve_open(found);
        if (file < 0)
            container_leave(&container);
    }
    resolve_end(found);
    make_container(&container, found->record.id, launch->job.request, file, &who, plan);
    command_find(launch->command, launch->environment.list);
    container_ready(&container);
    node_close_at_exit(NULL);
    close_ours();
}

/* Only look, and change nothing. */
static _Noreturn void show(struct launch *launch)
{
    struct node none = {.directory = -1};

    resolve(&launch->found, &none);
    resolve_end(&launch->found);
    choose(launch);
    binds_look(&launch->plan);
    binds_find(&launch->plan);
    dry_run(&(struct dry_run){&launch->job, &launch->plan, &launch->found.record,
                              &launch->environment, launch->command});
    exit(EXIT_SUCCESS);
}

int main(int argc, char **argv)
{
    static struct launch launch;
    struct job *job = &launch.job;
    mode_t mask;

    (void)argc;
    fill_standard_streams();
    helper_begin(argv);
    refuse_privilege();
    args_read(job, argv);
    if (job->action == CHECK_CONFIG)
        return check_config(job->checked);
    /* What we make, for other ranks too, has the modes that we say. */
    mask = umask(0);
    rlimits_lift();
    if (job->action == DOCTOR)
        return doctor(&(struct visit){job, make_container});
    config_read(&launch.config);
    plan_make(&launch.plan, job, &launch.config);
    if (job->verbose)
        plan_tell(&launch.plan);
    resolve_begin(&launch.found, job, launch.plan.store);
    envfiles_read(&launch.variables, &job->env_files);
    if (job->action == DRY_RUN)
        show(&launch);
    enter_container(&launch);
    umask(mask);
    rlimits_restore();
    environment_enter(&launch.environment,
                      command_enter_workdir(job, &launch.found.record, &launch.plan),
                      job->workdir_asked);
    MUST(privileges_drop(), "cannot drop privileges");
    hooks_run(launch.plan.modules);
    command_run(launch.command, launch.environment.list);
}
