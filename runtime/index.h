/* The index: how a name becomes an image (spool/index.md).  Nothing read from it is trusted. */
#ifndef SHIFTER_INDEX_H
#define SHIFTER_INDEX_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

enum index_answer {
    INDEX_FOUND,
    INDEX_ABSENT,    /* the key is not there */
    INDEX_EMPTY,     /* nothing was ever published */
    INDEX_DAMAGED,   /* the file breaks a rule of its format; `why` says which */
    INDEX_UNREADABLE /* the filesystem's answer is in errno */
};

struct value {
    char *bytes; /* from malloc, a NUL after them */
    size_t length;
    const char *why;
};

struct generation {
    int directory;
    uint64_t number;
    char name[NAME_MAX + 1]; /* of its file in the directory */
};

/* Find the newest generation in the directory `path`, which stays open; `no_directory` says that
   there is no such directory. */
enum index_answer index_list(const char *path, struct generation *newest, int *no_directory);

/* Open it; -1 and errno. */
int index_open(const struct generation *newest);

/* How many entries the index open on `fd` has, by its own account; -1 and errno. */
int index_count(int fd, uint64_t *entries);

/* Find `key` in the index open on `fd`. */
enum index_answer index_find(int fd, const char *key, struct value *value);

/* The same with a key that may hold NUL bytes: those that users cannot write begin with one. */
enum index_answer index_find_bytes(int fd, const char *key, size_t length, struct value *value);

#endif
