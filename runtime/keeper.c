#include "keeper.h"

#include "death.h"
#include "detached.h"
#include "fail.h"
#include "helper.h"
#include "privileges.h"
#include "sweep.h"

#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* What the keeper finds where, after its standard streams. */
enum { GO_FD = 3, ACK_FD, ERRORS_FD, WATCH_FD, NODE_FD, FUSE_FD, FILES = 6 };

/* How long it waits for more ranks, after the last one. */
enum { LINGER_MS = 1000, LINGER_MOST_MS = 60000 };

/* How long applications may take to start. */
enum { START_MS = 1000 };

/* How long the founder waits for the keeper, where processors are few. */
enum { ACK_MS = 5 };

#define CANNOT_START "cannot start the image's server"

enum event { QUIET, ENDED };

struct keeping {
    struct node node;
    char name[NODE_FILE_NAME]; /* of the container's file; empty: it has none */
    char image[13];            /* the first digits of the image's id */
    char request[256];         /* what the caller calls the image */
    char said[1024];           /* the last line that the server has said */
    pid_t founder, server;
    uint64_t mount;        /* inode of the container's mount namespace */
    uint64_t memory_kills; /* on this node, soon after the server began to work */
    int linger;            /* ms */
    int errors, watch;     /* -1: there is none */
};

/* What the founder says: one byte of these. */
enum { MOUNTED = 1, READY = 2, WATCHED = 4, KNOWN = 8, SHARED = 16 };

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

/* Let the kernel end the wait of whatever asks a server that is dead. */
static void end_connection(void)
{
    close(FUSE_FD);
}

/* The founder's next byte; 0 if it is dead, or has given up.  A server that dies meanwhile must not
   let the founder wait; what it has said is for the founder to read. */
static char next_byte(const struct keeping *keeping)
{
    struct pollfd files[] = {{GO_FD, POLLIN, 0}, {keeping->errors, 0, 0}};
    char byte = 0;

    for (;;) {
        int count = poll(files, 2, -1);

        if (count > 0 && files[1].revents != 0) {
            end_connection();
            files[1].fd = -1;
        }
        if (count > 0 && files[0].revents != 0)
            return read(GO_FD, &byte, 1) == 1 ? byte : 0;
    }
}

/* Keep the last line of what the server says. */
static void take_words(struct keeping *keeping, const char *text, size_t length)
{
    size_t room = sizeof keeping->said - 1;
    const char *line;

    while (length > 0 && text[length - 1] == '\n')
        length--;
    line = memrchr(text, '\n', length);
    if (line != NULL) {
        length -= (size_t)(line + 1 - text);
        text = line + 1;
    }
    if (length == 0)
        return;
    length = length < room ? length : room;
    memcpy(keeping->said, text, length);
    keeping->said[length] = '\0';
}

/* Read what the server says, which must not have to wait for a reader; 0: it has ended. */
static int read_words(struct keeping *keeping)
{
    char text[4096];
    ssize_t got = read(keeping->errors, text, sizeof text);

    if (got > 0)
        take_words(keeping, text, (size_t)got);
    return got > 0 || (got < 0 && errno == EINTR);
}

/* The end of the container, of its server, or of the time. */
static enum event wait_for_end(struct keeping *keeping, int milliseconds)
{
    struct pollfd files[] = {{keeping->errors, POLLIN, 0}, {keeping->watch, POLLIN, 0}};

    for (;;) {
        int count = poll(files, 2, milliseconds);

        if (count == 0)
            return QUIET;
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 || files[1].revents != 0 || !read_words(keeping))
            return ENDED;
    }
}

/* Say it to the applications before they get errors: then end the wait of those that ask. */
static void tell_of_death(const struct keeping *keeping, int status, const struct rusage *usage)
{
    char reason[DEATH_REASON], line[DEATH_REASON + 512];
    int length;

    death_reason(reason, status, usage, keeping->said, keeping->memory_kills);
    length = snprintf(line, sizeof line,
                      "shifter: the server of the image '%s' (%s) has died, and no file of the image "
                      "can be read any more: %s\n",
                      keeping->request, keeping->image, reason);
    for (int at = 0; at + 1 < length; at++)
        if ((unsigned char)line[at] < ' ' || line[at] == 0x7f)
            line[at] = '?';
    death_tell(keeping->mount, line, (size_t)length);
}

/* A server ends by itself, without an error, when its mount has gone. */
static void look_at_server(const struct keeping *keeping)
{
    struct rusage usage;
    int status = 0;

    if (keeping->server > 0 && wait4(keeping->server, &status, WNOHANG, &usage) == 0) {
        /* Its descriptors close before it can be waited for; or its mount still has to go. */
        struct pollfd errors = {keeping->errors, 0, 0};

        if (poll(&errors, 1, 0) <= 0)
            return;
        wait4(keeping->server, &status, 0, &usage);
    }
    if (keeping->server > 0 && status != 0)
        tell_of_death(keeping, status, &usage);
    end_connection();
}

static off_t size_of(const struct keeping *keeping)
{
    struct stat status;

    return fstatat(keeping->node.directory, keeping->name, &status, AT_SYMLINK_NOFOLLOW) == 0
               ? status.st_size
               : 0;
}

/* Hold the namespaces as long as somebody comes. */
static enum event linger(struct keeping *keeping)
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
static void hold_founders(struct keeping *keeping, struct keeper_place *place)
{
    struct stat status;
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/ns/user", keeping->founder);
    place->user = open(path, O_RDONLY | O_CLOEXEC);
    snprintf(path, sizeof path, "/proc/%d/ns/mnt", keeping->founder);
    place->mount = open(path, O_RDONLY | O_CLOEXEC);
    if (place->mount >= 0 && fstat(place->mount, &status) == 0)
        keeping->mount = status.st_ino;
}

static void close_place(struct keeper_place *place)
{
    if (place->user >= 0)
        close(place->user);
    if (place->mount >= 0)
        close(place->mount);
    place->user = place->mount = -1;
}

/* Hold those of another rank in the container, if the founder has ended by now. */
static void hold_others(const struct state *state, struct keeper_place *place)
{
    struct namespaces found;

    if (state_open(state, &found) < 0)
        return;
    close_place(place);
    place->user = found.user;
    place->mount = found.mount;
}

/* Now the application starts, and needs the processors more than we do. */
static void stay_out_of_the_way(void)
{
    const struct timespec nap = {0, 20L * 1000000};

    nanosleep(&nap, NULL);
}

/* Whether the file is still that of our container. */
static int is_ours(const struct keeping *keeping, const struct state *state)
{
    return state->ready && state->founder == keeping->founder &&
           (keeping->mount == 0 || state->mount == keeping->mount);
}

/* Say in the container's file what the keeper holds: under the lock, for by now the file may be
   another container's.  Then ours has none any more, and no rank can join it. */
static void make_known(struct keeping *keeping, struct keeper_place *place)
{
    int file = openat(keeping->node.directory, keeping->name,
                      O_RDWR | O_APPEND | O_NOFOLLOW | O_CLOEXEC);
    struct state state = {.ready = 0};

    if (file >= 0 && state_lock(file, F_RDLCK, 1) == 0 && state_is_there(file))
        state_read_whole(&state, file);
    if (is_ours(keeping, &state)) {
        if (place->mount < 0)
            hold_others(&state, place);
        keeping->mount = state.mount;
        if (place->mount >= 0)
            state_keep(file, place);
    } else {
        close_place(place);
        keeping->name[0] = '\0';
    }
    if (file >= 0)
        close(file);
}

/* Hold the namespaces for ranks still to come; ENDED if the container has ended meanwhile. */
static enum event keep_shared(struct keeping *keeping, struct keeper_place *place, int is_known)
{
    if (!is_known)
        make_known(keeping, place);
    return place->mount < 0 ? QUIET : linger(keeping);
}

/* What the kernel has killed before is asked for when nothing starts any more: it takes long. */
static void wait_alone(struct keeping *keeping)
{
    if (wait_for_end(keeping, START_MS) == ENDED)
        return;
    keeping->memory_kills = death_memory_kills();
    wait_for_end(keeping, -1);
}

/* With neither server nor watch the end would not be seen: then it is over for further ranks as
   soon as nobody comes. */
static void keep_open(struct keeping *keeping, struct keeper_place *place)
{
    ssize_t ignored = place->mount < 0 ? 0 : write(ACK_FD, place, sizeof *place);
    char byte;

    /* A founder that does not wait for us any more reads it in the container's file. */
    (void)ignored;
    close(ACK_FD);
    MUST(privileges_drop_here(), "cannot drop privileges");
    byte = next_byte(keeping);
    if (byte == 0)
        return;
    if (!(byte & WATCHED))
        keeping->watch = -1;
    if (!(byte & SHARED))
        keeping->name[0] = '\0';
    close(GO_FD);
    stay_out_of_the_way();
    if (keeping->name[0] == '\0' || keep_shared(keeping, place, byte & KNOWN) == QUIET) {
        close_place(place);
        if (keeping->errors >= 0 || keeping->watch >= 0)
            wait_alone(keeping);
    }
    look_at_server(keeping);
}

static _Noreturn void keep(struct keeping *keeping)
{
    struct keeper_place place = {getpid(), -1, -1, keeping->server};

    keeping->errors = keeping->errors < 0 ? -1 : ERRORS_FD;
    keeping->watch = keeping->watch < 0 ? -1 : WATCH_FD;
    keeping->node.directory = NODE_FD;
    /* With all privileges, for only who has as many as the founder may look. */
    if (next_byte(keeping) == MOUNTED) {
        hold_founders(keeping, &place);
        keep_open(keeping, &place);
    }
    if (keeping->name[0] != '\0')
        sweep_own(&keeping->node, keeping->name, keeping->founder);
    node_close(&keeping->node);
    _exit(EXIT_SUCCESS);
}

/* The server is the keeper's child, so that the keeper learns how it ended.  0, or errno. */
static int start_server(struct keeping *keeping, const struct image *image)
{
    keeping->server = image->server.fuse < 0 ? 0 : fork();
    if (keeping->server == 0 && image->server.fuse >= 0)
        server_run(&image->server);
    return keeping->server < 0 ? errno : 0;
}

static _Noreturn void be_keeper(struct keeping *keeping, const struct image *image, int go, int ack,
                                int started)
{
    const int files[FILES] = {go,
                              ack,
                              keeping->errors,
                              keeping->watch,
                              keeping->node.directory,
                              image->server.fuse};
    unsigned char error = (unsigned char)start_server(keeping, image);

    if (write(started, &error, 1) != 1 || error != 0)
        _exit(EXIT_SUCCESS);
    detach(files, FILES, -1);
    keep(keeping);
}

/* In a child of the launcher, which ends as soon as both run: they must be no children of what
   becomes the application.  A private container without a server needs neither. */
static _Noreturn void start(struct keeping *keeping, const struct image *image, int go, int ack)
{
    unsigned char error = ECHILD;
    int started[2];
    pid_t child;

    if (image->server.fuse < 0 && keeping->name[0] == '\0')
        _exit(0);
    helper_settle();
    helper_name("shifter-keeper", keeping->image);
    if (pipe2(started, O_CLOEXEC) < 0)
        _exit(errno & 0x7f);
    child = fork();
    if (child == 0)
        be_keeper(keeping, image, go, ack, started[1]);
    close(started[1]);
    if (child < 0 || read(started[0], &error, 1) < 0)
        _exit(errno & 0x7f);
    _exit(error);
}

void keeper_start(struct keeper *keeper, const struct node *node, const char *name,
                  const struct image *image, const char *request)
{
    struct keeping keeping = {.node = *node,
                              .founder = getpid(),
                              .linger = linger_ms(),
                              .memory_kills = UINT64_MAX,
                              .errors = image->errors};
    int go[2], ack[2];

    snprintf(keeping.name, sizeof keeping.name, "%s", name);
    snprintf(keeping.image, sizeof keeping.image, "%s", image->server.id);
    snprintf(keeping.request, sizeof keeping.request, "%s", request);
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

void keeper_begin(const struct keeper *keeper, int is_shared, int is_known)
{
    send_byte(keeper->go, (char)(READY | (keeper->watch >= 0 ? WATCHED : 0) |
                                 (is_known ? KNOWN : 0) | (is_shared ? SHARED : 0)));
}
