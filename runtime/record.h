/* What the index says of one image: the value under its key (spool/index.md, "Values"). */
#ifndef SHIFTER_RECORD_H
#define SHIFTER_RECORD_H

#include "words.h"

#include <stddef.h>
#include <stdint.h>

enum { ID_LENGTH = 64 };

struct record {
    char id[ID_LENGTH + 1];
    uint64_t size;
    const char *workdir; /* or NULL */
    const char *digest;  /* of the manifest */
    const char *platform; /* what it is made for, or NULL */
    struct words env;    /* NAME=value … */
    struct words entrypoint, cmd;
};

enum record_answer { RECORD_READ, RECORD_DAMAGED, RECORD_NEWER };

/* Read the value of `key`; `why` says what is wrong with it.  The record points into `value`. */
enum record_answer record_read(struct record *record, const char *key, const char *value,
                               size_t length, const char **why);

/* The same with a key that may hold NUL bytes. */
enum record_answer record_read_bytes(struct record *record, const char *key, size_t key_length,
                                     const char *value, size_t length, const char **why);

/* Whether `value`, fields that each end with a NUL, is whole, and of the format we know. */
enum record_answer fields_check(const char *key, const char *value, size_t length,
                                const char **why);

/* The same with a key that may hold NUL bytes. */
enum record_answer fields_check_bytes(const char *key, size_t key_length, const char *value,
                                      size_t length, const char **why);

/* How many bytes of checked fields come before the last one, the checksum. */
size_t fields_body(size_t length);

/* The value of the first field `name` in checked fields, or NULL. */
const char *fields_find(const char *value, size_t length, const char *name);

#endif
