#include "server.h"

#include "fail.h"
#include "privileges.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

/* What the server finds where; the first three are its standard streams. */
enum { FUSE_FD = 3, IMAGE_FD = 4, GO_FD = 5, FIRST_FOREIGN_FD = 6, OUT_OF_THE_WAY = 10 };

static void close_from(int first)
{
    DIR *open_files;
    struct dirent *entry;

    if (syscall(SYS_close_range, first, ~0u, 0) == 0)
        return;
    /* Kernels before 5.9. */
    open_files = opendir("/proc/self/fd");
    if (open_files == NULL)
        fail(errno, NULL, "cannot close the caller's files");
    while ((entry = readdir(open_files)) != NULL) {
        int fd = atoi(entry->d_name);

        if (fd >= first && fd != dirfd(open_files))
            close(fd);
    }
    closedir(open_files);
}

static int move_up(int fd)
{
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, OUT_OF_THE_WAY);

    MUST(moved, "cannot move a file descriptor");
    return moved;
}

/* Put each descriptor where the server expects it, and close all others.  Where they are now may
   be any number, one of the targets too, so all move out of the way first. */
static void arrange_files(const struct server *server)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int errors = move_up(server->errors), fuse = move_up(server->fuse);
    int image = move_up(server->image), go = move_up(server->go);

    MUST(null, "cannot open '/dev/null'");
    null = move_up(null);
    MUST(dup2(errors, STDERR_FILENO), "cannot set the server's errors");
    MUST(dup2(null, STDIN_FILENO), "cannot set the server's input");
    MUST(dup2(null, STDOUT_FILENO), "cannot set the server's output");
    MUST(dup2(fuse, FUSE_FD), "cannot set the server's connection");
    MUST(dup2(image, IMAGE_FD), "cannot set the server's image");
    MUST(dup3(go, GO_FD, O_CLOEXEC), "cannot set the server's pipe");
    close_from(FIRST_FOREIGN_FD);
}

static void reset_signals(void)
{
    sigset_t none;

    for (int number = 1; number < NSIG; number++)
        signal(number, number == SIGPIPE ? SIG_IGN : SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
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
}

void server_run(const struct server *server)
{
    char *const argv[] = {(char *)SERVER_PROGRAM, (char *)"-f", (char *)"/proc/self/fd/4",
                          (char *)"/dev/fd/3", NULL};
    char *const environment[] = {(char *)"PATH=/usr/local/bin:/usr/bin:/bin", (char *)"LANG=C",
                                 NULL};

    arrange_files(server);
    reset_signals();
    MUST(setsid(), "cannot leave the caller's session");
    MUST(chdir("/"), "cannot leave the caller's directory");
    umask(022);
    MUST(privileges_drop(), "cannot drop privileges");
    wait_for_mount();
    execve(server->program, argv, environment);
    fail(errno, NULL, "cannot execute '%s'", server->program);
}
