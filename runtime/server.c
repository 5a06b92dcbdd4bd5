#include "server.h"

#include "batch.h"
#include "detached.h"
#include "fail.h"
#include "helper.h"
#include "privileges.h"
#include "serve/fuse.h"
#include "serve/squashfs.h"

#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What the server finds where, after its standard streams. */
enum { FUSE_FD = 3, IMAGE_FD = 4, GO_FD = 5, FILES = 3 };

/* The second is ten times slower where many processes read at once. */
static const char *const programs[] = {"squashfuse_ll", "squashfuse"};
/* Where they are looked for, before PATH. */
static const char *const directories[] = {"/usr/local/bin", "/usr/bin", "/bin"};

static int is_program(char path[PATH_MAX], const char *directory, size_t length,
                      const char *program)
{
    struct stat status;
    int written = snprintf(path, PATH_MAX, "%.*s/%s", (int)length, directory, program);

    return written > 0 && written < PATH_MAX && stat(path, &status) == 0 &&
           S_ISREG(status.st_mode) && access(path, X_OK) == 0;
}

static int find(char path[PATH_MAX], const char *program)
{
    const char *rest = getenv("PATH");

    for (size_t at = 0; at < sizeof directories / sizeof directories[0]; at++)
        if (is_program(path, directories[at], strlen(directories[at]), program))
            return 1;
    while (rest != NULL && *rest != '\0') {
        size_t length = strcspn(rest, ":");

        if (*rest == '/' && is_program(path, rest, length, program))
            return 1;
        rest += length + (rest[length] == ':');
    }
    return 0;
}

const char *server_name(const struct server *server)
{
    const char *slash = strrchr(server->program, '/');

    return slash == NULL ? "shifter" : slash + 1;
}

void server_find_program(struct server *server)
{
    for (size_t at = 0; at < sizeof programs / sizeof programs[0]; at++) {
        if (!find(server->program, programs[at]))
            continue;
        if (at > 0)
            warn("'%s' was not found: reading the image is slow with '%s'", programs[0],
                 programs[at]);
        return;
    }
    fail(0, "install it on this node: apt install squashfuse", "'%s' was not found", programs[0]);
}

void server_find(struct server *server)
{
    enum squashfs_kind kind = squashfs_kind(server->image);

    server->program[0] = '\0';
    server->is_of_job = batch_job() != NULL || batch_is_step();
    if (kind == SQUASHFS_DAMAGED)
        fail(0, "is the image damaged? see shifter-admin verify",
             "cannot read the image: it is no squashfs file");
    if (kind == SQUASHFS_FOREIGN)
        server_find_program(server);
}

/* A server that reads before the mount is refused (EPERM), and one whose launcher is dead would
   wait for ever: the launcher's byte says that there is a mount, end of file that there is none. */
static void wait_for_mount(void)
{
    char byte;
    ssize_t got;

    do
        got = read(GO_FD, &byte, 1);
    while (got < 0 && errno == EINTR);
    if (got != 1)
        _exit(EXIT_SUCCESS);
    close(GO_FD);
}

/* On all processors of the job, as far as its control group allows: a batch system binds one rank,
   whose time the server would take, and the server is for all of them.  Without a job the caller
   has chosen the processors, and that binding holds. */
static void run_anywhere(void)
{
    cpu_set_t all;

    memset(&all, 0xff, sizeof all);
    sched_setaffinity(0, sizeof all, &all);
}

void server_run(const struct server *server)
{
    const int files[FILES] = {server->fuse, server->image, server->go};
    char *const argv[] = {(char *)(uintptr_t)server_name(server), (char *)"-f",
                          (char *)"/proc/self/fd/4", (char *)"/dev/fd/3", NULL};
    char *const environment[] = {(char *)"PATH=/usr/local/bin:/usr/bin:/bin", (char *)"LANG=C",
                                 NULL};

    helper_name("shifter-server", server->id);
    detach(files, FILES, server->errors);
    if (server->is_of_job)
        run_anywhere();
    if (server->program[0] == '\0') {
        struct service *service;

        MUST(privileges_drop_here(), "cannot drop privileges");
        service = fuse_open(IMAGE_FD);
        wait_for_mount();
        fuse_serve(service, FUSE_FD);
    }
    MUST(privileges_drop(), "cannot drop privileges");
    wait_for_mount();
    execve(server->program, argv, environment);
    fail(errno, NULL, "cannot execute '%s'", server->program);
}
