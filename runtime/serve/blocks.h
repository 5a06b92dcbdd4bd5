/* Blocks of a squashfs file, decompressed once and kept while they are in use. */
#ifndef SHIFTER_BLOCKS_H
#define SHIFTER_BLOCKS_H

#include "table.h"

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

enum block_home {
    BLOCK_SPARE, /* it holds nothing that could be found */
    BLOCK_KEPT,  /* in the table, until another one needs its room */
    BLOCK_STAYS  /* read ahead */
};

struct block {
    struct link link;  /* first, for the table */
    uint64_t position; /* in the file */
    uint64_t next;     /* of metadata: of the block behind it */
    uint32_t stored;   /* its size there, as the file has it */
    enum block_home home;
    int users;         /* who read it now: it must stay */
    int busy;          /* being read; others wait */
    int error;         /* errno of reading it, or 0 */
    size_t length;
    unsigned char *bytes;
};

/* A block that will be asked for. */
struct ahead {
    _Atomic int state;
    int plain;
    struct block block;
};

/* A cache of blocks that are all at most `largest` bytes long. */
struct blocks {
    int file;
    uint64_t end; /* of the squashfs in the file */
    size_t largest, count;
    size_t room;  /* so many of them may be used now, */
    size_t begun; /* and so many ever were */
    int headed;   /* a block begins with two bytes that say how long it is, as metadata does */
    unsigned char *bytes; /* of all */
    struct block *list;
    struct block *spare; /* chained by their links */
    struct table table;
    struct ahead *ahead; /* those that are read before; they stay */
    size_t ahead_count, ahead_most;
    pthread_mutex_t lock;
    pthread_cond_t ready;
};

/* -1 and errno if there is no memory. */
int blocks_begin(struct blocks *blocks, int file, uint64_t end, size_t largest, size_t count,
                 int headed);

/* Use at first no more memory than one large page has, but for `least` blocks: to clear another
   costs as much as to decompress three blocks.  Then all. */
void blocks_narrow(struct blocks *blocks, size_t least);
void blocks_widen(struct blocks *blocks);

/* Free them. */
void blocks_end(struct blocks *blocks);

/* Get the block at `position`, which is `stored` bytes long in the file, and `plain` if it is not
   compressed; if blocks are headed, it says so itself.  It stays until blocks_put.  NULL and errno:
   EIO if it is not what it should be. */
struct block *blocks_get(struct blocks *blocks, uint64_t position, uint32_t stored, int plain);
void blocks_put(struct blocks *blocks, struct block *block);

/* Blocks to be read before anybody asks: make room for so many, name them, and read them, in a
   thread that may be kept from running for as long as others want to, so nobody waits for it: who
   needs what it has not finished reads it himself.  Once only; -1 and errno. */
int blocks_ahead_begin(struct blocks *blocks, size_t most);
void blocks_ahead(struct blocks *blocks, uint64_t position, uint32_t stored, int plain);
void blocks_ahead_run(struct blocks *blocks);

#endif
