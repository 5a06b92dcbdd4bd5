/* shifter: run a command in an image.  Read main: it is the order of things. */
#include "args.h"
#include "batch.h"
#include "binds.h"
#include "command.h"
#include "container.h"
#include "description.h"
#include "environment.h"
#include "fail.h"
#include "files.h"
#include "identity.h"
#include "image.h"
#include "inside.h"
#include "keeper.h"
#include "namespaces.h"
#include "node.h"
#include "privileges.h"
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

static int is_directory(const char *path)
{
    struct stat status;

    return path != NULL && path[0] == '/' && stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

/* The caller's home and directory; looked at so that an automounter brings them before our
   namespaces, in which it cannot. */
static const char *find_home(void)
{
    const char *home = getenv("HOME");
    struct identity who;

    if (is_directory(home))
        return home;
    identity_begin(&who);
    identity_read(&who);
    return is_directory(who.home) ? who.home : NULL;
}

static const char *find_cwd(char cwd[PATH_MAX])
{
    return getcwd(cwd, PATH_MAX) != NULL && is_directory(cwd) ? cwd : NULL;
}

/* Where the caller is, and what he sees there: who is elsewhere cannot share a container. */
static void write_place(FILE *key, const char *path)
{
    struct stat status;

    if (stat(path, &status) == 0)
        fprintf(key, "%s=%ju:%ju\n", path, (uintmax_t)status.st_dev, (uintmax_t)status.st_ino);
}

/* What all who share a container have in common. */
static char *make_key(const struct resolution *found, const char *home, const char *cwd)
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
    fprintf(key, "store=%s\nid=%s\nhome=%s\ncwd=%s\n", found->store, found->record.id,
            home != NULL ? home : "", cwd != NULL ? cwd : "");
    if (fclose(key) != 0)
        fail(errno, NULL, "cannot go on");
    return text;
}

/* Make the container, and enter it. */
static void make_container(struct container *container, int file, struct identity *who,
                           const char *home, const char *cwd)
{
    struct image image = {.server.fuse = -1, .errors = -1};
    struct description description;
    struct keeper keeper;
    struct binds binds;
    mode_t mask;

    identity_read(who);
    mask = umask(0);
    namespaces_enter_user();
    image_open(&image, file);
    keeper_start(&keeper, &container->node, container->name, &image);
    image_started(&image);
    namespaces_enter_mount();
    keeper_hold(&keeper);
    root_begin();
    keeper_watch(&keeper, ".");
    image_mount(&image, IMAGE_DIR);
    /* While the server starts. */
    binds_open(&binds, home, cwd);
    description_read(&description, file);
    image_check(&image, IMAGE_DIR);
    root_build(&binds, who, &description);
    root_enter();
    umask(mask);
    keeper_started(&keeper);
    container_ready(container, &keeper);
}

/* Join the container of this image and these options, or be the first. */
static void enter_container(struct resolution *found, const char *home, const char *cwd)
{
    struct container container;
    struct identity who;
    struct node node;
    int file = -1;

    node_open(&node);
    while (file < 0) {
        char *key;

        resolve(found, &node);
        key = make_key(found, home, cwd);
        if (container_enter(&container, &node, key, strlen(key)) == CONTAINER_JOINED)
            return;
        identity_begin(&who);
        if (resolve_identity(found, &who) == 0)
            file = resolve_open(found);
        if (file < 0)
            container_leave(&container);
    }
    resolve_end(found);
    make_container(&container, file, &who, home, cwd);
}

int main(int argc, char **argv)
{
    char cwd_text[PATH_MAX];
    const char *home, *cwd;
    struct job job;
    struct resolution found;
    char **environment;

    (void)argc;
    fill_standard_streams();
    refuse_privilege();
    args_read(&job, argv);
    resolve_begin(&found, &job);
    home = find_home();
    cwd = find_cwd(cwd_text);
    enter_container(&found, home, cwd);
    environment = environment_build(environ, &found.record, job.image);
    command_enter_workdir(&job, &found.record, cwd);
    MUST(privileges_drop(), "cannot drop privileges");
    command_run(&job, environment);
}
