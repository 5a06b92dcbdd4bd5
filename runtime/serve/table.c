#include "table.h"

#include <stdlib.h>

int table_begin(struct table *table, unsigned bits)
{
    *table = (struct table){.bits = bits};
    table->buckets = calloc((size_t)1 << bits, sizeof(struct link *));
    return table->buckets == NULL ? -1 : 0;
}

void table_end(struct table *table)
{
    free(table->buckets);
    table->buckets = NULL;
}

/* Keys are places in a file, near each other: a large odd factor spreads them (Knuth, 6.4). */
static struct link **bucket_of(const struct table *table, uint64_t key)
{
    return &table->buckets[key * UINT64_C(0x9e3779b97f4a7c15) >> (64 - table->bits)];
}

struct link *table_find(const struct table *table, uint64_t key)
{
    struct link *link = *bucket_of(table, key);

    while (link != NULL && link->key != key)
        link = link->chain;
    return link;
}

static void append(struct table *table, struct link *link)
{
    link->older = table->newest;
    link->newer = NULL;
    *(table->newest == NULL ? &table->oldest : &table->newest->newer) = link;
    table->newest = link;
}

static void take_out(struct table *table, const struct link *link)
{
    *(link->older == NULL ? &table->oldest : &link->older->newer) = link->newer;
    *(link->newer == NULL ? &table->newest : &link->newer->older) = link->older;
}

void table_add(struct table *table, struct link *link, uint64_t key)
{
    struct link **bucket = bucket_of(table, key);

    link->key = key;
    link->chain = *bucket;
    *bucket = link;
    append(table, link);
}

void table_remove(struct table *table, struct link *link)
{
    struct link **at = bucket_of(table, link->key);

    while (*at != link)
        at = &(*at)->chain;
    *at = link->chain;
    take_out(table, link);
}

void table_touch(struct table *table, struct link *link)
{
    take_out(table, link);
    append(table, link);
}
