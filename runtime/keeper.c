#include "keeper.h"

#include "detached.h"
#include "fail.h"
#include "privileges.h"
#include "sweep.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* What the keeper finds where, after its standard streams. */
enum { GO_FD = 3, ACK_FD, ERRORS_FD, WATCH_FD, NODE_FD, FILES = 5 };

/* How long it waits for more ranks, after the last one. */
enum { LINGER_MS = 1000, LINGER_MOST_MS = 60000 };

/* How long the founder waits for the keeper, where processors are few. */
enum { ACK_MS = 5 };

#define CANNOT_START "cannot start the image's server"

enum event { QUIET, ENDED };

struct keeping {
    struct node node;
    char name[NODE_FILE_NAME]; /* of the container's file; empty: it has none */
    pid_t founder, server;
    int linger;         /* ms */
    int errors, watch;  /* -1: there is none */
};

/* What the founder says: one byte of these. */
enum { MOUNTED = 1, READY = 2, WATCHED = 4, KNOWN = 8 };

/* SHIFTER_LINGER: seconds, perhaps with a fraction. */
static int linger_ms(void)
{
    const char *text = getenv("SHIFTER_LINGER");
    char *end;
    double seconds;

    if (text == NULL || *text == '\0')
        return LINGER_MS;
    seconds = strtod(text, &end);
    if (*end != '\0' || !(seconds >= 0 && seconds * 1000 <= LINGER_MOST_MS))
        fail(0, "write seconds, from 0 to 60", "SHIFTER_LINGER is not a duration: '%s'", text);
    return (int)(seconds * 1000);
}

/* The founder's next byte; 0 if it is dead, or has given up. */
static char next_byte(void)
{
    char byte = 0;
    ssize_t got;

    do
        got = read(GO_FD, &byte, 1);
    while (got < 0 && errno == EINTR);
    return got == 1 ? byte : 0;
}

/* The end of the container, of its server, or of the time. */
static enum event wait_for_end(const struct keeping *keeping, int milliseconds)
{
    struct pollfd files[] = {{keeping->errors, POLLIN, 0}, {keeping->watch, POLLIN, 0}};
    char ignored[4096];

    for (;;) {
        int count = poll(files, 2, milliseconds);

        if (count == 0)
            return QUIET;
        if (count < 0 && errno == EINTR)
            continue;
        /* A server that says much must not have to wait for a reader. */
        if (count > 0 && files[1].revents == 0 && (files[0].revents & POLLIN) &&
            read(keeping->errors, ignored, sizeof ignored) > 0)
            continue;
        return ENDED;
    }
}

static off_t size_of(const struct keeping *keeping)
{
    struct stat status;

    return fstatat(keeping->node.directory, keeping->name, &status, AT_SYMLINK_NOFOLLOW) == 0
               ? status.st_size
               : 0;
}

/* Hold the namespaces as long as somebody comes. */
static enum event linger(const struct keeping *keeping)
{
    off_t before, now = size_of(keeping);
    enum event event;

    do {
        before = now;
        event = wait_for_end(keeping, keeping->linger);
        now = size_of(keeping);
    } while (event == QUIET && now != before);
    return event;
}

/* Hold the founder's namespaces. */
static void hold_founders(const struct keeping *keeping, struct keeper_place *place)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/ns/user", keeping->founder);
    place->user = open(path, O_RDONLY | O_CLOEXEC);
    snprintf(path, sizeof path, "/proc/%d/ns/mnt", keeping->founder);
    place->mount = open(path, O_RDONLY | O_CLOEXEC);
}

/* Hold those of whoever is in the container, if the founder is gone by now. */
static void hold_others(const struct keeping *keeping, struct keeper_place *place, int file)
{
    struct namespaces found;
    struct state state;

    state_read(&state, file);
    if (!state.ready || state.founder != keeping->founder || state_open(&state, &found) < 0)
        return;
    close(place->user);
    place->user = found.user;
    place->mount = found.mount;
}

/* Now the application starts, and needs the processors more than we do. */
static void stay_out_of_the_way(void)
{
    const struct timespec nap = {0, 20L * 1000000};

    nanosleep(&nap, NULL);
}

/* Say what we hold in the container's file. */
static int make_known(const struct keeping *keeping, struct keeper_place *place)
{
    int file = openat(keeping->node.directory, keeping->name,
                      O_RDWR | O_APPEND | O_NOFOLLOW | O_CLOEXEC);

    if (file < 0)
        return -1;
    if (place->mount < 0)
        hold_others(keeping, place, file);
    if (place->mount >= 0)
        state_keep(file, place);
    close(file);
    return place->mount < 0 ? -1 : 0;
}

/* With neither server nor watch the end would not be seen: then it is over for further ranks as
   soon as nobody comes. */
static void keep_open(struct keeping *keeping, struct keeper_place *place)
{
    ssize_t ignored = place->mount < 0 ? 0 : write(ACK_FD, place, sizeof *place);
    char byte;

    /* Who does not wait for us any more reads it in the container's file. */
    (void)ignored;
    close(ACK_FD);
    MUST(privileges_drop_here(), "cannot drop privileges");
    byte = next_byte();
    if (byte == 0)
        return;
    if (!(byte & WATCHED))
        keeping->watch = -1;
    close(GO_FD);
    stay_out_of_the_way();
    if (!(byte & KNOWN) && make_known(keeping, place) < 0)
        return;
    if (linger(keeping) == ENDED)
        return;
    close(place->mount);
    if (keeping->errors >= 0 || keeping->watch >= 0)
        wait_for_end(keeping, -1);
}

static _Noreturn void keep(struct keeping *keeping)
{
    struct keeper_place place = {getpid(), -1, -1, keeping->server};

    keeping->errors = keeping->errors < 0 ? -1 : ERRORS_FD;
    keeping->watch = keeping->watch < 0 ? -1 : WATCH_FD;
    keeping->node.directory = NODE_FD;
    /* With all privileges, for only who has as many as the founder may look. */
    if (next_byte() == MOUNTED) {
        hold_founders(keeping, &place);
        keep_open(keeping, &place);
    }
    sweep_own(&keeping->node, keeping->name, keeping->founder);
    node_close(&keeping->node);
    _exit(EXIT_SUCCESS);
}

/* In a child of the launcher, which ends at once: they must be no children of what becomes the
   application. */
static _Noreturn void start(struct keeping *keeping, const struct image *image, int go, int ack)
{
    const int files[FILES] = {go, ack, keeping->errors, keeping->watch, keeping->node.directory};
    pid_t child = image->server.fuse < 0 ? 1 : fork();

    if (child == 0)
        server_run(&image->server);
    keeping->server = image->server.fuse < 0 ? 0 : child;
    if (child > 0 && keeping->name[0] != '\0') {
        child = fork();
        if (child == 0) {
            detach(files, FILES, -1);
            keep(keeping);
        }
    }
    _exit(child < 0 ? errno & 0x7f : 0);
}

void keeper_start(struct keeper *keeper, const struct node *node, const char *name,
                  const struct image *image)
{
    struct keeping keeping = {.node = *node,
                              .founder = getpid(),
                              .linger = linger_ms(),
                              .errors = image->errors};
    int go[2], ack[2];

    snprintf(keeping.name, sizeof keeping.name, "%s", name);
    MUST(pipe2(go, O_CLOEXEC), CANNOT_START);
    MUST(pipe2(ack, O_CLOEXEC), CANNOT_START);
    /* A user may have so many of them; without one the end of the server must do. */
    keeping.watch = keeper->watch = inotify_init1(IN_CLOEXEC);
    keeper->child = fork_silently();
    if (keeper->child < 0)
        fail_to_fork(errno, CANNOT_START);
    if (keeper->child == 0)
        start(&keeping, image, go[0], ack[1]);
    close(go[0]);
    close(ack[1]);
    keeper->ack = ack[0];
    keeper->go = go[1];
}

void keeper_started(const struct keeper *keeper)
{
    wait_for_child(keeper->child, CANNOT_START);
}

void keeper_hold(const struct keeper *keeper)
{
    send_byte(keeper->go, MOUNTED);
}

void keeper_watch(struct keeper *keeper, const char *path)
{
    if (keeper->watch >= 0 && inotify_add_watch(keeper->watch, path, IN_DELETE_SELF) < 0) {
        close(keeper->watch);
        keeper->watch = -1;
    }
}

int keeper_place(const struct keeper *keeper, struct keeper_place *place)
{
    struct pollfd ready_to_read = {keeper->ack, POLLIN, 0};

    return poll(&ready_to_read, 1, ACK_MS) > 0 &&
           read(keeper->ack, place, sizeof *place) == sizeof *place;
}

void keeper_begin(const struct keeper *keeper, int is_known)
{
    send_byte(keeper->go, (char)(READY | (keeper->watch >= 0 ? WATCHED : 0) |
                                 (is_known ? KNOWN : 0)));
}
