#include "image.h"

#include "fail.h"
#include "files.h"
#include "server.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define FUSE_HINT "this node must allow FUSE to users (root: modprobe fuse; chmod 666 /dev/fuse)"

/* Where the server's program is looked for, before PATH. */
static const char *const directories[] = {"/usr/local/bin", "/usr/bin", "/bin"};

static int is_program(char path[PATH_MAX], const char *directory, size_t length)
{
    struct stat status;
    int written =
        snprintf(path, PATH_MAX, "%.*s/" SERVER_PROGRAM, (int)length, directory);

    return written > 0 && written < PATH_MAX && stat(path, &status) == 0 &&
           S_ISREG(status.st_mode) && access(path, X_OK) == 0;
}

static void find_program(char path[PATH_MAX])
{
    const char *rest = getenv("PATH");

    for (size_t at = 0; at < sizeof directories / sizeof directories[0]; at++)
        if (is_program(path, directories[at], strlen(directories[at])))
            return;
    while (rest != NULL && *rest != '\0') {
        size_t length = strcspn(rest, ":");

        if (*rest == '/' && is_program(path, rest, length))
            return;
        rest += length + (rest[length] == ':');
    }
    fail(0, "install it on this node: apt install squashfuse", "'%s' was not found",
         SERVER_PROGRAM);
}

/* Fork without a signal at the child's end: a SIGCHLD that the caller has blocked would stay
   pending until the application unblocks it.  And without a tracer for the child: one that traces
   the application and its image's server at once (strace -f) waits for ever as soon as it reads
   memory of the one that only the other, which it has stopped, can fill.  Tests that kill the
   child before each of its system calls define UNTRACED as 0. */
#ifndef UNTRACED
#define UNTRACED CLONE_UNTRACED
#endif

static pid_t fork_silently(void)
{
    return (pid_t)syscall(SYS_clone, UNTRACED, 0, 0, 0, 0);
}

static void wait_for(pid_t child)
{
    int status = 0;
    pid_t ended;

    do
        ended = waitpid(child, &status, __WALL);
    while (ended < 0 && errno == EINTR);
    MUST(ended, "cannot wait for the start of the image's server");
    if (status != 0)
        fail(WIFEXITED(status) ? WEXITSTATUS(status) : 0, NULL,
             "cannot start the image's server");
}

void image_serve(struct image *image, int file)
{
    struct server server = {.image = file};
    int go[2], errors[2];
    pid_t child;

    find_program(server.program);
    image->fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (image->fuse < 0)
        fail(errno, FUSE_HINT, "cannot open '/dev/fuse'");
    MUST(pipe2(go, O_CLOEXEC), "cannot start the image's server");
    MUST(pipe2(errors, O_CLOEXEC), "cannot start the image's server");
    server.fuse = image->fuse;
    server.go = go[0];
    server.errors = errors[1];
    child = fork_silently();
    MUST(child, "cannot start the image's server");
    if (child == 0) {
        /* The server must be no child of what becomes the application: this process is its
           parent, and is gone at once. */
        child = fork();
        if (child == 0)
            server_run(&server);
        _exit(child < 0 ? errno & 0x7f : 0);
    }
    wait_for(child);
    close(go[0]);
    close(errors[1]);
    image->go = go[1];
    image->errors = errors[0];
}

/* A server that is dead already is found dead by image_check, and must not kill us here. */
static void send_go(int go)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN}, callers;

    MUST(sigaction(SIGPIPE, &ignore, &callers), "cannot ignore SIGPIPE");
    if (write(go, "", 1) < 0 && errno != EPIPE)
        fail(errno, NULL, "cannot start the image's server");
    MUST(sigaction(SIGPIPE, &callers, NULL), "cannot restore SIGPIPE");
}

void image_mount(struct image *image, const char *target)
{
    char options[128];

    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=%u,group_id=%u", image->fuse,
             geteuid(), getegid());
    if (mount("shifter", target, "fuse.squashfuse_ll", MS_RDONLY | MS_NOSUID | MS_NODEV, options) <
        0)
        fail(errno, FUSE_HINT, "cannot mount the image");
    send_go(image->go);
    close(image->go);
    /* From here on only the server holds the connection: should it die, the kernel ends the wait
       of whoever asks it. */
    close(image->fuse);
}

/* The last line that the server said; it has ended, or will not be waited for. */
static const char *last_words(int errors, char text[1024])
{
    struct pollfd ready = {errors, POLLIN, 0};
    size_t length = 0;
    ssize_t got = 1;
    char *line;

    while (got > 0 && length < 1023 && poll(&ready, 1, 1000) > 0) {
        got = read(errors, text + length, 1023 - length);
        length += got > 0 ? (size_t)got : 0;
    }
    while (length > 0 && text[length - 1] == '\n')
        length--;
    text[length] = '\0';
    line = strrchr(text, '\n');
    return line != NULL ? line + 1 : text;
}

void image_check(const struct image *image, const char *target)
{
    struct stat status;
    char text[1024];
    int error;

    /* The kernel lets nobody in before the server has answered it, so this is the whole wait. */
    if (stat(target, &status) == 0)
        return;
    error = errno;
    fail(error, "is the image damaged? see shifter-admin verify",
         "cannot read the image: '" SERVER_PROGRAM "' said '%s'", last_words(image->errors, text));
}
