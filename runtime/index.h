/* The index: how a name becomes an image (spool/index.md).  Nothing read from it is trusted. */
#ifndef SHIFTER_INDEX_H
#define SHIFTER_INDEX_H

#include <stddef.h>

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

/* Open the newest generation in `path`; `no_directory` says that there is no such directory. */
enum index_answer index_open(const char *path, int *fd, int *no_directory);

/* Find `key` in the index open on `fd`. */
enum index_answer index_find(int fd, const char *key, struct value *value);

/* The same with a key that may hold NUL bytes: those that users cannot write begin with one. */
enum index_answer index_find_bytes(int fd, const char *key, size_t length, struct value *value);

#endif
