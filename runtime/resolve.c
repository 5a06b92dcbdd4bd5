#include "resolve.h"

#include "fail.h"
#include "file_id.h"
#include "files.h"
#include "id_prefix.h"
#include "memo.h"
#include "names.h"
#include "transient.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_HINT "write NAME:TAG or REGISTRY/NAME:TAG, for example ubuntu:24.04"
#define ID_HINT "an image id has 64 digits 0-9a-f; its first 4 may be enough"
#define DAMAGED_HINT "tell the administrator of the store: shifter-admin verify"

#define STORE_HINT "is the filesystem of the store well on this node?"

/* A node's caches may show a generation that is gone, or none of an image that has just come. */
static int is_passing(int error)
{
    return error == ENOENT || is_transient(error);
}

static _Noreturn void no_image(const struct resolution *found, enum index_answer answer,
                               const char *why)
{
    if (answer == INDEX_ABSENT)
        fail(0, reference_is_id(found->key) ? "see the ids with: shifterimg images --json"
                                           : hint("get it with: shifterimg pull %s",
                                                  found->job->image),
             "no image '%s' in the store '%s'", found->key, found->store);
    if (answer == INDEX_EMPTY)
        fail(0, hint("fill it with: shifterimg pull %s",
                     found->job->image != NULL ? found->job->image : "NAME"),
             "the store '%s' is empty", found->store);
    fail(0, DAMAGED_HINT, "the index of the store '%s' is damaged: %s", found->store, why);
}

static enum index_answer list(struct resolution *found)
{
    char directory[PATH_MAX];
    int no_directory;
    enum index_answer answer;
    struct file_id id;

    path_format(directory, "%s/index", found->store);
    answer = index_list(directory, &found->newest, &no_directory);
    if (no_directory)
        fail(0, "set SHIFTER_STORE or --store, or make one: shifterimg pull NAME",
             "there is no store at '%s'", found->store);
    if (answer == INDEX_FOUND) {
        file_id_read_free(&id, found->newest.directory);
        found->directory = file_id_hash(&id);
    }
    return answer;
}

static _Noreturn void fail_newer(const struct resolution *found)
{
    fail(0, "load or install a newer shifter",
         "the index of the store '%s' was made by a newer version", found->store);
}

static _Noreturn void fail_elsewhere(const struct resolution *found)
{
    const char *own = found->machine.architecture, *platform = found->record.platform;
    const struct machine best = {own, INT_MAX};

    fail(0,
         machine_runs(&best, platform)
             ? "the site's 'platform' in shifter_lite.toml is more than this node can run"
             : hint("get it for this node with: shifterimg pull --platform linux/%s %s", own,
                    found->job->image),
         "the image '%s' in the store '%s' is made for '%s', and there is none for this node's "
         "'linux/%s'",
         found->key, found->store, platform, own);
}

/* Find the key in the newest generation; -1 and errno if the filesystem gave an error. */
static int look_up(struct resolution *found, struct memo *memo)
{
    const char *why = "";

    if (found->index < 0)
        found->index = index_open(&found->newest);
    if (found->index < 0)
        return -1;
    switch (names_find(found->index, &found->machine, found->key, &memo->value, &found->record,
                       &why)) {
    case NAME_FOUND:
        break;
    case NAME_ABSENT:
        no_image(found, INDEX_ABSENT, "");
    case NAME_ELSEWHERE:
        fail_elsewhere(found);
    case NAME_DAMAGED:
        no_image(found, INDEX_DAMAGED, hint("%s at '%s'", why, found->key));
    case NAME_NEWER:
        fail_newer(found);
    case NAME_UNREADABLE:
        return -1;
    }
    memo->generation = found->newest.number;
    memo->directory = found->directory;
    return 0;
}

/* What is kept on the node and damaged is asked anew. */
static int is_remembered(struct resolution *found, const struct memo *memo)
{
    return memo->generation == found->newest.number && memo->directory == found->directory &&
           names_read(&found->machine, found->key, &memo->value, &found->record);
}

static _Noreturn void fail_ambiguous(const struct resolution *found, const struct id_keys *keys)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);

    if (out == NULL)
        fail(errno, NULL, "cannot go on");
    for (size_t at = 0; at < keys->count && at < ID_KEYS_SHOWN; at++)
        fprintf(out, "%s%s", at > 0 ? ", " : "", keys->keys[at]);
    if (fclose(out) != 0)
        fail(errno, NULL, "cannot go on");
    fail(0, hint("write more digits: %s%s", text, keys->count > ID_KEYS_SHOWN ? ", ..." : ""),
         "%zu images in the store '%s' begin with '%s'", keys->count, found->store, found->key);
}

/* Find in the index which one id begins with the key; -1 and errno if the filesystem gave an
   error. */
static int look_up_prefix(struct resolution *found, struct id_keys *keys)
{
    enum index_answer answer;
    const char *why;

    found->index = index_open(&found->newest);
    if (found->index < 0)
        return -1;
    answer = id_prefix_find(found->store, found->index, found->key, keys, &why);
    if (answer == INDEX_UNREADABLE)
        return -1;
    if (answer != INDEX_FOUND)
        no_image(found, answer, why);
    if (keys->count == 0)
        no_image(found, INDEX_ABSENT, "");
    if (keys->count > 1)
        fail_ambiguous(found, keys);
    return 0;
}

/* What the node remembers of the beginning holds in its generation: the next one may have other
   images that begin so. */
static int is_remembered_prefix(const struct resolution *found, const struct memo *memo)
{
    return memo->generation == found->newest.number && memo->directory == found->directory &&
           memo->value.length == ID_KEY_LENGTH &&
           strncmp(memo->value.bytes, found->key, strlen(found->key)) == 0;
}

/* Make the key that of the one image whose id begins so; -1 and errno as above. */
static int complete(struct resolution *found, const struct node *node)
{
    struct memo memo = {.value = {NULL, 0, ""}};
    int kept = memo_read(node, found->store, found->key, &memo);
    struct id_keys keys;
    enum index_answer answer = list(found);

    if (answer == INDEX_UNREADABLE)
        return -1;
    if (answer != INDEX_FOUND)
        no_image(found, answer, "");
    if (!kept || !is_remembered_prefix(found, &memo)) {
        if (look_up_prefix(found, &keys) < 0)
            return -1;
        memo.generation = found->newest.number;
        memo.directory = found->directory;
        memo.value = (struct value){keys.keys[0], ID_KEY_LENGTH, ""};
        memo_write(node, found->store, found->key, &memo);
    }
    memcpy(found->key, memo.value.bytes, ID_KEY_LENGTH);
    found->key[ID_KEY_LENGTH] = '\0';
    return 0;
}

/* List the generations, unless that has been done. */
static enum index_answer list_once(struct resolution *found)
{
    return found->newest.directory < 0 ? list(found) : INDEX_FOUND;
}

static int try(struct resolution *found, const struct node *node)
{
    struct memo memo = {.value = {NULL, 0, ""}};
    enum index_answer answer;
    int kept;

    found->newest.directory = found->index = -1;
    if (reference_is_id_prefix(found->key) && complete(found, node) < 0)
        return -1;
    kept = memo_read(node, found->store, found->key, &memo);
    if (found->newest.directory < 0) {
        found->newest.number = memo.generation;
        found->directory = memo.directory;
    }
    /* An id means the same in every generation of every store. */
    if (kept && reference_is_id(found->key) && is_remembered(found, &memo))
        return 0;
    answer = list_once(found);
    if (answer == INDEX_UNREADABLE)
        return -1;
    if (answer != INDEX_FOUND)
        no_image(found, answer, "");
    if (kept && is_remembered(found, &memo))
        return 0;
    if (look_up(found, &memo) < 0)
        return -1;
    memo_write(node, found->store, found->key, &memo);
    return 0;
}

/* Open the image; -1 and errno if the filesystem gave an error. */
static int open_image(struct resolution *found)
{
    struct stat status;
    int fd;

    path_format(found->path, "%s/images/%.2s/%s.squashfs", found->store, found->record.id,
                found->record.id);
    fd = open(found->path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return -1;
    if (fstat(fd, &status) < 0) {
        int error = errno;

        close(fd);
        errno = error;
        return -1;
    }
    if (!S_ISREG(status.st_mode))
        fail(0, DAMAGED_HINT, "the image '%s' is not a regular file", found->path);
    if ((uint64_t)status.st_size != found->record.size)
        fail(0, DAMAGED_HINT,
             "the image '%s' has %jd bytes, where the index says %" PRIu64, found->path,
             (intmax_t)status.st_size, found->record.size);
    return fd;
}

static _Noreturn void give_up(const struct resolution *found)
{
    if (found->path[0] == '\0')
        fail(errno,
             errno == EACCES ? "the store's administrator decides who may read it"
                             : STORE_HINT,
             "cannot read the index of the store '%s'", found->store);
    if (errno == ENOENT)
        fail(0, DAMAGED_HINT, "the file of the image is missing: '%s'", found->path);
    fail(errno,
         errno == EACCES        ? "private images are for those who pulled them"
         : is_transient(errno) ? STORE_HINT
                                : DAMAGED_HINT,
         "cannot open the image '%s'", found->path);
}

/* Wait for what may pass, longer each time. */
static void bide(struct resolution *found)
{
    int error = errno;

    resolve_end(found);
    if (is_passing(error) && transient_wait(&found->waited))
        return;
    errno = error;
    give_up(found);
}

void resolve_begin(struct resolution *found, const struct job *job, const char *store)
{
    memset(found, 0, sizeof *found);
    found->job = job;
    found->machine = machine_own();
    found->newest.directory = found->index = -1;
    if (job->image != NULL && reference_normalise(job->image, found->key) < 0)
        fail(0, reference_is_id(job->image) ? ID_HINT : NAME_HINT, "not an image name: '%s'", job->image);
    path_format(found->store, "%s", store);
}

void resolve(struct resolution *found, const struct node *node)
{
    found->path[0] = '\0';
    while (try(found, node) < 0)
        bide(found);
}

/* The index, open; -1 and errno. */
static int open_index(struct resolution *found)
{
    if (found->newest.directory < 0) {
        enum index_answer answer = list(found);

        if (answer == INDEX_EMPTY)
            no_image(found, answer, "");
        if (answer != INDEX_FOUND)
            return -1;
    }
    if (found->index < 0)
        found->index = index_open(&found->newest);
    return found->index;
}

void resolve_index(struct resolution *found)
{
    found->path[0] = '\0';
    while (open_index(found) < 0)
        bide(found);
}

int resolve_identity(struct resolution *found, struct identity *who)
{
    const char *why = "";
    enum index_answer answer = INDEX_UNREADABLE;

    found->path[0] = '\0';
    if (open_index(found) >= 0)
        answer = identity_lookup(who, found->index, &why);
    if (answer == INDEX_DAMAGED)
        no_image(found, answer, why);
    if (answer == INDEX_FOUND)
        return 0;
    bide(found);
    return -1;
}

int resolve_open(struct resolution *found)
{
    int fd = open_image(found);

    if (fd < 0)
        bide(found);
    return fd;
}

void resolve_end(struct resolution *found)
{
    int error = errno;

    if (found->index >= 0)
        close(found->index);
    if (found->newest.directory >= 0)
        close(found->newest.directory);
    found->index = found->newest.directory = -1;
    errno = error;
}
