/* shifter: run a command in an image.  Read main: it is the order of things. */
#include "args.h"
#include "binds.h"
#include "command.h"
#include "description.h"
#include "environment.h"
#include "fail.h"
#include "files.h"
#include "identity.h"
#include "image.h"
#include "inside.h"
#include "namespaces.h"
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

static int is_directory(const char *path)
{
    struct stat status;

    return path != NULL && path[0] == '/' && stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

/* The caller's home and directory; looked at so that an automounter brings them before our
   namespaces, in which it cannot. */
static const char *find_home(const struct identity *who)
{
    const char *home = getenv("HOME");

    if (is_directory(home))
        return home;
    return is_directory(who->home) ? who->home : NULL;
}

static const char *find_cwd(char cwd[PATH_MAX])
{
    return getcwd(cwd, PATH_MAX) != NULL && is_directory(cwd) ? cwd : NULL;
}

int main(int argc, char **argv)
{
    char cwd_text[PATH_MAX];
    const char *home, *cwd;
    struct job job;
    struct record record;
    struct identity who;
    struct image image;
    struct description description;
    struct binds binds;
    char **environment;
    mode_t mask;
    int file;

    (void)argc;
    fill_standard_streams();
    refuse_privilege();
    args_read(&job, argv);
    identity_begin(&who);
    file = resolve(&job, &record, &who);

    identity_read(&who);
    home = find_home(&who);
    cwd = find_cwd(cwd_text);
    environment = environment_build(environ, &record, job.image);
    mask = umask(0);

    namespaces_enter_user();
    image_serve(&image, file);
    namespaces_enter_mount();
    root_begin();
    image_mount(&image, IMAGE_DIR);
    /* While the server starts. */
    binds_open(&binds, home, cwd);
    description_read(&description, file);
    image_check(&image, IMAGE_DIR);
    root_build(&binds, &who, &description);
    root_enter();

    umask(mask);
    command_enter_workdir(&job, &record, cwd);
    MUST(privileges_drop(), "cannot drop privileges");
    command_run(&job, environment);
}
