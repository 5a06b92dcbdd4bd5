#include "resolve.h"

#include "fail.h"
#include "files.h"
#include "index.h"
#include "reference.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NAME_HINT "write NAME:TAG or REGISTRY/NAME:TAG, for example ubuntu:24.04"
#define DAMAGED_HINT "tell the administrator of the store: shifter-admin verify"

enum { FIRST_PAUSE_MS = 20, PATIENCE_MS = 5000 };

struct search {
    const struct job *job;
    char store[PATH_MAX];
    char key[REFERENCE_MAX];
    char path[PATH_MAX]; /* of the image */
};

/* What a node's caches may show of a generation or an image that is gone, or gone for a moment. */
static int is_passing(int error)
{
    return error == ESTALE || error == ENOENT || error == EIO;
}

static void read_value(const struct search *search, struct value *value, struct record *record)
{
    const char *why;

    switch (record_read(record, search->key, value->bytes, value->length, &why)) {
    case RECORD_READ:
        return;
    case RECORD_NEWER:
        fail(0, "load or install a newer shifter",
             "the index of the store '%s' was made by a newer version", search->store);
    case RECORD_DAMAGED:
        break;
    }
    fail(0, DAMAGED_HINT, "the index of the store '%s' is damaged: %s at '%s'", search->store, why,
         search->key);
}

/* Find the key in the newest generation; -1 and errno if the filesystem gave an error. */
static int look_up(const struct search *search, struct record *record)
{
    char directory[PATH_MAX];
    struct value value = {NULL, 0, ""};
    int fd = -1, no_directory, error;
    enum index_answer answer;

    path_format(directory, "%s/index", search->store);
    answer = index_open(directory, &fd, &no_directory);
    if (no_directory)
        fail(0, "set SHIFTER_STORE or --store, or make one: shifterimg pull NAME",
             "there is no store at '%s'", search->store);
    if (answer == INDEX_FOUND) {
        answer = index_find(fd, search->key, &value);
        error = errno;
        close(fd);
        errno = error;
    }
    switch (answer) {
    case INDEX_FOUND:
        read_value(search, &value, record);
        return 0;
    case INDEX_ABSENT:
        fail(0, hint("get it with: shifterimg pull %s", search->job->image),
             "no image '%s' in the store '%s'", search->key, search->store);
    case INDEX_EMPTY:
        fail(0, hint("fill it with: shifterimg pull %s", search->job->image),
             "the store '%s' is empty", search->store);
    case INDEX_DAMAGED:
        fail(0, DAMAGED_HINT, "the index of the store '%s' is damaged: %s", search->store,
             value.why);
    case INDEX_UNREADABLE:
        break;
    }
    return -1;
}

/* Open the image; -1 and errno if the filesystem gave an error. */
static int open_image(struct search *search, const struct record *record)
{
    struct stat status;
    int fd;

    path_format(search->path, "%s/images/%.2s/%s.squashfs", search->store, record->id, record->id);
    fd = open(search->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return -1;
    MUST(fstat(fd, &status), "cannot read the image '%s'", search->path);
    if (!S_ISREG(status.st_mode))
        fail(0, DAMAGED_HINT, "the image '%s' is not a regular file", search->path);
    if ((uint64_t)status.st_size != record->size)
        fail(0, DAMAGED_HINT,
             "the image '%s' has %jd bytes, where the index says %" PRIu64, search->path,
             (intmax_t)status.st_size, record->size);
    return fd;
}

static _Noreturn void give_up(const struct search *search)
{
    if (search->path[0] == '\0')
        fail(errno,
             errno == EACCES ? "the store's administrator decides who may read it"
                             : "is the filesystem of the store well on this node?",
             "cannot read the index of the store '%s'", search->store);
    if (errno == ENOENT)
        fail(0, DAMAGED_HINT, "the file of the image is missing: '%s'", search->path);
    fail(errno,
         errno == EACCES ? "private images are for those who pulled them" : DAMAGED_HINT,
         "cannot open the image '%s'", search->path);
}

int resolve(const struct job *job, const char *store, struct record *record)
{
    struct search search = {.job = job};
    long waited = 0;

    if (reference_normalise(job->image, search.key) < 0)
        fail(0, NAME_HINT, "not an image name: '%s'", job->image);
    path_format(search.store, "%s", store);
    for (long pause = FIRST_PAUSE_MS;; pause *= 2) {
        struct timespec nap = {pause / 1000, pause % 1000 * 1000000};
        int fd;

        search.path[0] = '\0';
        if (look_up(&search, record) == 0 && (fd = open_image(&search, record)) >= 0)
            return fd;
        if (!is_passing(errno) || waited + pause > PATIENCE_MS)
            give_up(&search);
        nanosleep(&nap, NULL);
        waited += pause;
    }
}
