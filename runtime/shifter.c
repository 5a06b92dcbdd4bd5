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
#include "hooks.h"
#include "identity.h"
#include "image.h"
#include "inside.h"
#include "keeper.h"
#include "namespaces.h"
#include "node.h"
#include "plan.h"
#include "privileges.h"
#include "requires.h"
#include "resolve.h"
#include "root.h"

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
    plan_key(plan, key);
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

/* Make the container, and enter it. */
static void make_container(struct container *container, const char *id, int file,
                           struct identity *who, const struct plan *plan)
{
    struct etc etc;
    struct image image;
    struct description description;
    struct keeper keeper;
    struct binds binds;

    description_read(&description, file);
    check_modules(plan->modules, description.libs);
    binds_find(plan);
    etc_name_sources(who, plan->config);
    identity_read(who);
    etc_read(&etc, plan->config, who);
    namespaces_enter_user(plan->writable != 0);
    /* What is written to must belong to the caller, and in a mount of root's nothing does. */
    image_open(&image, plan->writable == 0 ? id : NULL, file);
    keeper_start(&keeper, &container->node, container->name, &image);
    image_started(&image);
    namespaces_enter_mount();
    binds_open(&binds, plan);
    root_begin();
    keeper_watch(&keeper, ".");
    image_mount(&image, IMAGE_DIR);
    if (image_wait(&image, IMAGE_DIR) < 0) {
        int error = errno;

        keeper_started(&keeper);
        image_fail(&image, error);
    }
    root_build(&binds, &etc, who, &description);
    root_enter();
    namespaces_enter_inner(who->uid, who->gid, plan->writable != 0);
    keeper_hold(&keeper);
    keeper_started(&keeper);
    container_ready(container, &keeper);
}

/* Join the container of this image and these options, or be the first.  From then on the image
   leads the way, and others in the container may look in: nothing of ours stays open. */
static void enter_container(struct resolution *found, const struct plan *plan)
{
    struct container container;
    struct identity who;
    struct node node = {.directory = -1};
    /* What one launch has written, another may see only if both are of one step. */
    int is_shared = plan->writable == 0 || batch_is_step();
    int file = -1;

    /* Nobody would remove what is left there for others. */
    if (is_shared)
        node_open(&node);
    while (file < 0) {
        char *key;

        resolve(found, &node);
        key = make_key(found, plan);
        if (container_enter(&container, &node, key, strlen(key)) == CONTAINER_JOINED) {
            resolve_end(found);
            return;
        }
        identity_begin(&who);
        if (resolve_identity(found, &who) == 0)
            file = resolve_open(found);
        if (file < 0)
            container_leave(&container);
    }
    resolve_end(found);
    make_container(&container, found->record.id, file, &who, plan);
    close_ours();
}

/* Only look, and change nothing. */
static _Noreturn void show(const struct job *job, const struct plan *plan,
                           struct resolution *found)
{
    struct environment environment;
    struct words variables;
    struct node none = {.directory = -1};

    resolve(found, &none);
    resolve_end(found);
    envfiles_read(&variables, &job->env_files);
    environment_build(&environment,
                      &(struct environment_sources){environ, job, &found->record, &variables,
                                                    plan->modules, plan->config});
    binds_find(plan);
    dry_run(&(struct dry_run){job, plan, &found->record, &environment,
                              command_choose(job, &found->record)});
    exit(EXIT_SUCCESS);
}

int main(int argc, char **argv)
{
    struct job job;
    struct config config = {0};
    struct plan plan;
    struct resolution found;
    struct environment environment;
    struct words variables;
    char **command;
    mode_t mask;

    (void)argc;
    fill_standard_streams();
    refuse_privilege();
    args_read(&job, argv);
    if (job.action == CHECK_CONFIG) {
        check_config(job.checked);
        return EXIT_SUCCESS;
    }
    /* What we make, for other ranks too, has the modes that we say. */
    mask = umask(0);
    if (job.action == DOCTOR)
        return doctor(&(struct visit){&job, make_container});
    config_read(&config);
    plan_make(&plan, &job, &config);
    if (job.verbose)
        plan_tell(&plan);
    resolve_begin(&found, &job, plan.store);
    if (job.action == DRY_RUN)
        show(&job, &plan, &found);
    envfiles_read(&variables, &job.env_files);
    enter_container(&found, &plan);
    umask(mask);
    environment_build(&environment,
                      &(struct environment_sources){environ, &job, &found.record, &variables,
                                                    plan.modules, &config});
    command = command_choose(&job, &found.record);
    command_enter_workdir(&job, &found.record, plan.cwd);
    MUST(privileges_drop(), "cannot drop privileges");
    hooks_run(plan.modules);
    command_run(command, environment.list);
}
