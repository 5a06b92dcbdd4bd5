#include "index.h"

#include "files.h"
#include "transient.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TABLES = 256, PAIR = 8, PAIRS_AT_ONCE = 64, GUESS = 4096, VALUE_LARGEST = 1 << 20 };

/* One more than the number in images.NNNNNNNNNN.cdb, or 0 for every other name. */
static uint64_t generation(const char *name)
{
    const char *digits = name + strlen("images.");
    size_t length;
    uint64_t number = 0;

    if (strncmp(name, "images.", strlen("images.")) != 0)
        return 0;
    length = strspn(digits, "0123456789");
    if (length < 10 || length > 19 || strcmp(digits + length, ".cdb") != 0)
        return 0;
    /* 19 digits and one more still fit into 64 bits. */
    for (size_t at = 0; at < length; at++)
        number = number * 10 + (uint64_t)(digits[at] - '0');
    return number + 1;
}

static enum index_answer read_names(DIR *directory, struct generation *newest)
{
    uint64_t highest = 0;
    struct dirent *entry;

    while (errno = 0, (entry = readdir(directory)) != NULL) {
        uint64_t number = generation(entry->d_name);

        if (number > highest) {
            highest = number;
            snprintf(newest->name, sizeof newest->name, "%s", entry->d_name);
        }
    }
    newest->number = highest - 1;
    if (errno != 0)
        return INDEX_UNREADABLE;
    return highest == 0 ? INDEX_EMPTY : INDEX_FOUND;
}

enum index_answer index_list(const char *path, struct generation *newest, int *no_directory)
{
    DIR *directory = opendir(path);
    enum index_answer answer;
    int error;

    newest->directory = -1;
    *no_directory = directory == NULL && (errno == ENOENT || errno == ENOTDIR);
    if (directory == NULL)
        return INDEX_UNREADABLE;
    answer = read_names(directory, newest);
    error = errno;
    if (answer == INDEX_FOUND)
        newest->directory = fcntl(dirfd(directory), F_DUPFD_CLOEXEC, 0);
    closedir(directory);
    errno = error;
    return answer;
}

int index_open(const struct generation *newest)
{
    return openat(newest->directory, newest->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
}

/* A file that is read by position, its size known, what is looked for in it, and what was wrong. */
struct cdb {
    int fd;
    uint64_t size;
    const char *key;
    size_t key_length;
    const char *why;
};

static uint32_t number(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

/* Read `length` bytes at `position`, which both may be any 32-bit number of a stranger's. */
static enum index_answer fetch(struct cdb *cdb, void *bytes, uint64_t length, uint64_t position)
{
    uint64_t done = 0;
    long waited = 0;

    cdb->why = "a position outside the file";
    if (length > cdb->size || position > cdb->size - length)
        return INDEX_DAMAGED;
    while (done < length) {
        ssize_t got = pread(cdb->fd, (char *)bytes + done, length - done, (off_t)(position + done));

        /* A generation that the server has removed is never read: its successor is. */
        if (got < 0 && errno != ESTALE && is_transient(errno) && transient_wait(&waited))
            continue;
        if (got < 0)
            return INDEX_UNREADABLE;
        cdb->why = "a file that became shorter";
        if (got == 0)
            return INDEX_DAMAGED;
        done += (uint64_t)got;
    }
    return INDEX_FOUND;
}

/* If the record at `position` is the key's, read its value. */
static enum index_answer read_record(struct cdb *cdb, uint64_t position, struct value *value)
{
    unsigned char guess[GUESS];
    uint64_t key_length = cdb->key_length, value_length, head, rest;
    uint64_t left = position < cdb->size ? cdb->size - position : 0;
    uint64_t have = left < sizeof guess ? left : sizeof guess;
    enum index_answer answer;

    /* Most records are small: one read brings the lengths, the key and the value. */
    answer = fetch(cdb, guess, have < PAIR ? PAIR : have, position);
    if (answer != INDEX_FOUND)
        return answer;
    value_length = number(guess + 4);
    head = PAIR + key_length;
    if (number(guess) != key_length)
        return INDEX_ABSENT;
    cdb->why = "a value larger than 1 MiB, or than the file";
    if (value_length > VALUE_LARGEST || head + value_length > left || head > have)
        return INDEX_DAMAGED;
    if (memcmp(guess + PAIR, cdb->key, key_length) != 0)
        return INDEX_ABSENT;
    value->length = value_length;
    value->bytes = must_allocate(1, value_length + 1);
    rest = have - head < value_length ? have - head : value_length;
    memcpy(value->bytes, guess + head, rest);
    return fetch(cdb, value->bytes + rest, value_length - rest, position + head + rest);
}

static uint32_t hash_key(const char *key, size_t length)
{
    uint32_t hash = 5381;

    for (size_t at = 0; at < length; at++)
        hash = ((hash << 5) + hash) ^ (unsigned char)key[at];
    return hash;
}

/* Look at each of the table's slots at most once, from the hash's own on, round to the first. */
static enum index_answer search(struct cdb *cdb, struct value *value)
{
    unsigned char pairs[PAIRS_AT_ONCE * PAIR];
    uint32_t hash = hash_key(cdb->key, cdb->key_length);
    enum index_answer answer = fetch(cdb, pairs, PAIR, (uint64_t)(hash % TABLES) * PAIR);
    uint64_t table, slots, slot;

    if (answer != INDEX_FOUND)
        return answer;
    table = number(pairs);
    slots = number(pairs + 4);
    if (slots == 0)
        return INDEX_ABSENT;
    cdb->why = "a table outside the file";
    if (slots * PAIR > cdb->size || table > cdb->size - slots * PAIR)
        return INDEX_DAMAGED;
    slot = (hash / TABLES) % slots;
    for (uint64_t looked = 0; looked < slots;) {
        uint64_t count = slots - (slot > looked ? slot : looked);

        count = count < PAIRS_AT_ONCE ? count : PAIRS_AT_ONCE;
        answer = fetch(cdb, pairs, count * PAIR, table + slot * PAIR);
        if (answer != INDEX_FOUND)
            return answer;
        for (uint64_t at = 0; at < count; at++) {
            uint32_t position = number(pairs + at * PAIR + 4);

            if (position == 0)
                return INDEX_ABSENT;
            if (number(pairs + at * PAIR) != hash)
                continue;
            answer = read_record(cdb, position, value);
            if (answer != INDEX_ABSENT)
                return answer;
        }
        looked += count;
        slot = (slot + count) % slots;
    }
    return INDEX_ABSENT;
}

enum index_answer index_find(int fd, const char *key, struct value *value)
{
    return index_find_bytes(fd, key, strlen(key), value);
}

enum index_answer index_find_bytes(int fd, const char *key, size_t length, struct value *value)
{
    struct cdb cdb = {fd, 0, key, length, ""};
    struct stat status;
    enum index_answer answer;

    memset(value, 0, sizeof *value);
    if (fstat(fd, &status) < 0)
        return INDEX_UNREADABLE;
    cdb.size = status.st_size > 0 ? (uint64_t)status.st_size : 0;
    value->why = "not a regular file";
    if (!S_ISREG(status.st_mode))
        return INDEX_DAMAGED;
    answer = search(&cdb, value);
    value->why = cdb.why;
    return answer;
}

/* Of the slots in its tables half are used. */
int index_count(int fd, uint64_t *entries)
{
    unsigned char tables[TABLES * PAIR];
    uint64_t slots = 0;
    ssize_t got = pread(fd, tables, sizeof tables, 0);

    if (got >= 0 && got != sizeof tables)
        errno = EIO;
    if (got != sizeof tables)
        return -1;
    for (size_t at = 0; at < TABLES; at++)
        slots += number(tables + at * PAIR + 4);
    *entries = slots / 2;
    return 0;
}
