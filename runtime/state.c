#include "state.h"

#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEEPER_LINE "keeper %d %d %d %d\n"
#define FIRST_LINE "shifter container 1\n"

/* So many bytes of a container's file are read at its head, and half as many at its end. */
enum { PART = 16 << 10 };

int state_lock(int file, short type, int wait)
{
    struct flock whole = {.l_type = type, .l_whence = SEEK_SET};
    int done;

    do
        done = fcntl(file, wait ? F_SETLKW : F_SETLK, &whole);
    while (done < 0 && errno == EINTR);
    return done;
}

int state_is_there(int file)
{
    struct stat status;

    return fstat(file, &status) == 0 && status.st_nlink > 0;
}

/* Take `word` off the text at `*at`. */
static int take(const char **at, const char *end, const char *word)
{
    size_t length = strlen(word);

    if ((size_t)(end - *at) < length || memcmp(*at, word, length) != 0)
        return 0;
    *at += length;
    return 1;
}

/* Take a decimal number of at most 18 digits, which cannot overflow, and the character `after`. */
static int take_number(const char **at, const char *end, uint64_t *number, char after)
{
    const char *start = *at;

    for (*number = 0; *at < end && **at >= '0' && **at <= '9' && *at - start < 18; ++*at)
        *number = *number * 10 + (uint64_t)(**at - '0');
    return *at > start && *at < end && *(*at)++ == after;
}

static int take_key(struct state *state, const char **at, const char *end)
{
    uint64_t length;

    if (!take(at, end, "key ") || !take_number(at, end, &length, '\n') ||
        length > (uint64_t)(end - *at))
        return 0;
    state->key = *at;
    state->key_length = (size_t)length;
    *at += length;
    return take(at, end, "\n");
}

static int take_pid(const char **at, const char *end, pid_t *pid, char after)
{
    uint64_t number;

    if (!take_number(at, end, &number, after) || number > INT32_MAX)
        return 0;
    *pid = (pid_t)number;
    return 1;
}

void state_parse(struct state *state, const char *text, size_t length)
{
    const char *at = text, *end = text + length;

    memset(state, 0, sizeof *state);
    state->ready = take(&at, end, FIRST_LINE) && take_key(state, &at, end) &&
                   take(&at, end, "user ") && take_number(&at, end, &state->user, '\n') &&
                   take(&at, end, "mount ") && take_number(&at, end, &state->mount, '\n') &&
                   take(&at, end, "founder ") && take_pid(&at, end, &state->founder, '\n') &&
                   take(&at, end, "ready\n");
    state->lines = at;
}

static size_t size_of(int file)
{
    struct stat status;

    return fstat(file, &status) == 0 && status.st_size > 0 ? (size_t)status.st_size : 0;
}

static size_t read_at(int file, char *text, size_t length, size_t offset)
{
    ssize_t got = pread(file, text, length, (off_t)offset);

    return got < 0 ? 0 : (size_t)got;
}

void state_read_whole(struct state *state, int file)
{
    size_t size = size_of(file);
    char *text = must_allocate(1, size + 1);

    state_parse(state, text, read_at(file, text, size, 0));
}

/* The lines behind the first ones, up to the last of them that is whole. */
static char *end_of_lines(char *text, size_t length)
{
    char *last = memrchr(text, '\n', length);

    return last == NULL ? text : last + 1;
}

/* Each rank that joins adds a line.  The first ones name the founder and the keeper, and the last ones
   those that most likely live: of a long file nothing else is read. */
void state_read(struct state *state, int file)
{
    size_t size = size_of(file), got;
    char *text, *end, *tail;

    if (size <= PART) {
        state_read_whole(state, file);
        return;
    }
    text = must_allocate(1, 2 * PART + 1);
    got = read_at(file, text, PART, 0);
    end = end_of_lines(text, got);
    got = read_at(file, end, PART / 2, size - PART / 2);
    tail = memchr(end, '\n', got);
    if (tail == NULL)
        tail = end + got - 1;
    got -= (size_t)(tail + 1 - end);
    memmove(end, tail + 1, got);
    end[got] = '\0';
    state_parse(state, text, (size_t)(end - text) + got);
    state->is_part = 1;
    /* A key of many volumes. */
    if (!state->ready)
        state_read_whole(state, file);
}

static uint64_t inode_of(const char *path)
{
    struct stat status;

    return stat(path, &status) == 0 ? status.st_ino : 0;
}

int state_write(int file, const char *key, size_t key_length, const struct keeper_place *keeper)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    ssize_t put;

    if (out == NULL)
        return -1;
    fprintf(out, FIRST_LINE "key %zu\n", key_length);
    fwrite(key, 1, key_length, out);
    fprintf(out, "\nuser %" PRIu64 "\nmount %" PRIu64 "\nfounder %d\nready\n%d\n",
            inode_of("/proc/self/ns/user"), inode_of("/proc/self/ns/mnt"), getpid(), getpid());
    if (keeper != NULL)
        fprintf(out, KEEPER_LINE, keeper->pid, keeper->user, keeper->mount, keeper->server);
    if (fclose(out) != 0)
        return -1;
    put = write(file, text, length);
    free(text);
    return put == (ssize_t)length ? 0 : -1;
}

void state_join(int file, pid_t other)
{
    char lines[32];
    int length = other == 0 ? snprintf(lines, sizeof lines, "%d\n", getpid())
                            : snprintf(lines, sizeof lines, "%d\n%d\n", other, getpid());
    ssize_t ignored = write(file, lines, (size_t)length);

    (void)ignored;
}

void state_keep(int file, const struct keeper_place *keeper)
{
    char line[64];
    int length = snprintf(line, sizeof line, KEEPER_LINE, keeper->pid, keeper->user,
                          keeper->mount, keeper->server);
    ssize_t ignored = write(file, line, (size_t)length);

    (void)ignored;
}

/* A namespace's file, if it is the one that we look for: a pid may be somebody else's by now. */
static int open_namespace(uint64_t inode, const char *path)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd >= 0 && (fstat(fd, &status) < 0 || status.st_ino != inode)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static int open_both(const struct state *state, struct namespaces *namespaces, const char *user,
                     const char *mount)
{
    namespaces->mount = open_namespace(state->mount, mount);
    if (namespaces->mount < 0)
        return -1;
    namespaces->user = open_namespace(state->user, user);
    if (namespaces->user >= 0)
        return 0;
    close(namespaces->mount);
    return -1;
}

static int open_of_rank(const struct state *state, struct namespaces *namespaces, pid_t pid)
{
    char user[32], mount[32];

    snprintf(user, sizeof user, "/proc/%d/ns/user", pid);
    snprintf(mount, sizeof mount, "/proc/%d/ns/mnt", pid);
    return open_both(state, namespaces, user, mount);
}

static int take_keeper(struct keeper_place *keeper, const char **at, const char *end)
{
    return take(at, end, "keeper ") && take_pid(at, end, &keeper->pid, ' ') &&
           take_pid(at, end, &keeper->user, ' ') && take_pid(at, end, &keeper->mount, ' ') &&
           take_pid(at, end, &keeper->server, '\n');
}

static int open_of_keeper(const struct state *state, struct namespaces *namespaces,
                          const struct keeper_place *keeper)
{
    char user[48], mount[48];

    snprintf(user, sizeof user, "/proc/%d/fd/%d", keeper->pid, keeper->user);
    snprintf(mount, sizeof mount, "/proc/%d/fd/%d", keeper->pid, keeper->mount);
    return open_both(state, namespaces, user, mount);
}

/* Whether the image is served: who has died is in no mount namespace, even if nobody has waited for
   him yet. */
static int is_served(const struct keeper_place *keeper)
{
    char path[32];
    struct stat status;

    snprintf(path, sizeof path, "/proc/%d/ns/mnt", keeper->server);
    return keeper->server == 0 || stat(path, &status) == 0;
}

static void close_both(struct namespaces *namespaces)
{
    close(namespaces->user);
    close(namespaces->mount);
}

/* Whether the namespaces could be had of a keeper or of the first rank, the founder; -1 if the image
   is not served any more. */
static int open_of_first(const struct state *state, struct namespaces *namespaces)
{
    const char *at = state->lines, *end = at + strlen(at);
    struct keeper_place keeper;
    pid_t pid, first = 0;
    int found = 0;

    while (at < end) {
        if (take_keeper(&keeper, &at, end)) {
            if (!is_served(&keeper)) {
                if (found)
                    close_both(namespaces);
                return -1;
            }
            found = found || open_of_keeper(state, namespaces, &keeper) == 0;
        } else if (!take_pid(&at, end, &pid, '\n')) {
            break;
        } else if (first == 0) {
            first = pid;
            found = found || open_of_rank(state, namespaces, pid) == 0;
        }
    }
    return found;
}

/* The last first: where many have come and gone, they live. */
static int open_of_last(const struct state *state, struct namespaces *namespaces)
{
    const char *end = state->lines + strlen(state->lines);

    while (end > state->lines) {
        const char *line = end - 1, *at;
        pid_t pid;

        while (line > state->lines && line[-1] != '\n')
            line--;
        at = line;
        if (take_pid(&at, end, &pid, '\n') && open_of_rank(state, namespaces, pid) == 0) {
            namespaces->rank = pid;
            return 1;
        }
        end = line;
    }
    return 0;
}

int state_open(const struct state *state, struct namespaces *namespaces)
{
    int found = open_of_first(state, namespaces);

    namespaces->rank = 0;
    if (found == 0)
        found = open_of_last(state, namespaces);
    return found > 0 ? 0 : -1;
}
