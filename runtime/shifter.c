/* shifter: run a command in an image.  Read main: it is the order of things. */
#include "args.h"
#include "binds.h"
#include "check.h"
#include "command.h"
#include "config.h"
#include "description.h"
#include "dry_run.h"
#include "envfile.h"
#include "environment.h"
#include "etc.h"
#include "fail.h"
#include "hooks.h"
#include "identity.h"
#include "image.h"
#include "inside.h"
#include "namespaces.h"
#include "plan.h"
#include "privileges.h"
#include "record.h"
#include "resolve.h"
#include "root.h"

#include <fcntl.h>
#include <stdlib.h>
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

int main(int argc, char **argv)
{
    struct job job;
    struct config config = {0};
    struct plan plan;
    struct record record;
    struct environment environment;
    struct words variables;
    struct identity who;
    struct etc etc;
    struct image image;
    struct description description;
    struct binds binds;
    char **command;
    mode_t mask;
    int file;

    (void)argc;
    fill_standard_streams();
    refuse_privilege();
    args_read(&job, argv);
    if (job.action == CHECK_CONFIG) {
        check_config(job.checked);
        return EXIT_SUCCESS;
    }
    config_read(&config);
    plan_make(&plan, &job, &config);
    if (job.verbose)
        plan_tell(&plan);
    file = resolve(&job, plan.store, &record);
    envfiles_read(&variables, &job.env_files);
    environment_build(&environment,
                      &(struct environment_sources){environ, &job, &record, &variables,
                                                    plan.modules, &config});
    command = command_choose(&job, &record);
    if (job.action == DRY_RUN) {
        binds_find(&plan);
        dry_run(&(struct dry_run){&job, &plan, &record, &environment, command});
        return EXIT_SUCCESS;
    }

    binds_find(&plan);
    identity_begin(&who);
    etc_name_sources(&who, &config);
    identity_read(&who);
    etc_read(&etc, &config, &who);
    mask = umask(0);

    namespaces_enter_user(plan.writable != 0);
    image_serve(&image, file);
    namespaces_enter_mount();
    binds_open(&binds, &plan);
    root_begin();
    image_mount(&image, IMAGE_DIR);
    /* While the server starts. */
    description_read(&description, file);
    image_check(&image, IMAGE_DIR);
    root_build(&binds, &etc, &who, &description);
    root_enter();
    if (plan.writable != 0)
        namespaces_leave_root(who.uid, who.gid);

    umask(mask);
    command_enter_workdir(&job, &record, plan.cwd);
    MUST(privileges_drop(), "cannot drop privileges");
    hooks_run(plan.modules);
    command_run(command, environment.list);
}
