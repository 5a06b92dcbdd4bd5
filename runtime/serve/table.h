/* What is kept is found by its number, and the one that was not used for longest is known. */
#ifndef SHIFTER_TABLE_H
#define SHIFTER_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* A part of what is kept, its first member. */
struct link {
    uint64_t key;
    struct link *chain; /* of the same bucket */
    struct link *older, *newer;
};

struct table {
    struct link **buckets;
    unsigned bits; /* there are 2^bits buckets */
    struct link *oldest, *newest;
};

/* -1 and errno if there is no memory. */
int table_begin(struct table *table, unsigned bits);

/* Free the buckets; what is in them is the caller's. */
void table_end(struct table *table);

struct link *table_find(const struct table *table, uint64_t key);

/* Keep `link`, which is not in the table, as the newest one. */
void table_add(struct table *table, struct link *link, uint64_t key);

/* Nobody finds it any more. */
void table_remove(struct table *table, struct link *link);

/* It is used now. */
void table_touch(struct table *table, struct link *link);

#endif
