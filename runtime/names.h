/* A name's image for one machine, in an open index (spool/index.md, "Platforms"). */
#ifndef SHIFTER_NAMES_H
#define SHIFTER_NAMES_H

#include "index.h"
#include "machine.h"
#include "record.h"

enum name_answer {
    NAME_FOUND,
    NAME_ABSENT,
    NAME_ELSEWHERE, /* the name is there, and the record says for which other platform */
    NAME_DAMAGED,   /* `why` says how */
    NAME_NEWER,
    NAME_UNREADABLE /* the filesystem's answer is in errno */
};

/* Find what `key` means to `machine` in the index open on `fd`.  The record points into `value`. */
enum name_answer names_find(int fd, const struct machine *machine, const char *key,
                            struct value *value, struct record *record, const char **why);

/* Whether `value` is what names_find once found, whole. */
int names_read(const struct machine *machine, const char *key, const struct value *value,
               struct record *record);

#endif
