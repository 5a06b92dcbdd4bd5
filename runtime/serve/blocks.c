#include "blocks.h"

#include "../transient.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zstd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define POISON(start, size) ASAN_POISON_MEMORY_REGION(start, size)
#define UNPOISON(start, size) ASAN_UNPOISON_MEMORY_REGION(start, size)
#else
#define POISON(start, size) ((void)0)
#define UNPOISON(start, size) ((void)0)
#endif

/* Each block has some to spare behind it, so that a checker of memory can see who reads too far. */
enum { SPARE = 64, LARGE_PAGE = 2 << 20, LARGE_BLOCK = 64 << 10 };

/* Memory for all blocks, which only those that are used take: many in large pages, where the kernel
   has them, because to fault in small ones takes longer than to decompress what is put there. */
static unsigned char *make_room(size_t largest, size_t count)
{
    size_t each = largest + SPARE;
    void *room = mmap(NULL, count * each, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                      0);

    if (room == MAP_FAILED)
        return NULL;
    if (largest >= LARGE_BLOCK)
        madvise(room, count * each, MADV_HUGEPAGE);
    UNPOISON(room, count * each);
    for (size_t at = 0; at < count; at++)
        POISON((unsigned char *)room + at * each + largest, SPARE);
    return room;
}

static void free_room(void *room, size_t largest, size_t count)
{
    if (room == NULL)
        return;
    UNPOISON(room, count * (largest + SPARE));
    munmap(room, count * (largest + SPARE));
}

int blocks_begin(struct blocks *blocks, int file, uint64_t end, size_t largest, size_t count,
                 int headed)
{
    unsigned bits = 1;

    memset(blocks, 0, sizeof *blocks);
    while ((size_t)1 << bits < count)
        bits++;
    blocks->file = file;
    blocks->end = end;
    blocks->largest = largest;
    blocks->count = blocks->room = count;
    blocks->headed = headed;
    blocks->list = calloc(count, sizeof *blocks->list);
    pthread_mutex_init(&blocks->lock, NULL);
    pthread_cond_init(&blocks->ready, NULL);
    blocks->bytes = make_room(largest, count);
    return blocks->list == NULL || blocks->bytes == NULL ? -1 : table_begin(&blocks->table, bits);
}

void blocks_narrow(struct blocks *blocks, size_t least)
{
    size_t room = LARGE_PAGE / (blocks->largest + SPARE);

    room = room < least ? least : room;
    blocks->room = room < blocks->count ? room : blocks->count;
}

void blocks_widen(struct blocks *blocks)
{
    pthread_mutex_lock(&blocks->lock);
    blocks->room = blocks->count;
    pthread_mutex_unlock(&blocks->lock);
}

void blocks_end(struct blocks *blocks)
{
    free_room(blocks->bytes, blocks->largest, blocks->count);
    if (blocks->ahead != NULL)
        free_room(blocks->ahead[0].block.bytes, blocks->largest, blocks->ahead_most);
    table_end(&blocks->table);
    free(blocks->list);
    free(blocks->ahead);
}

static int read_all(const struct blocks *blocks, void *bytes, size_t length, uint64_t position)
{
    ssize_t got;

    if (length > blocks->end || position > blocks->end - length)
        return EIO;
    got = transient_pread(blocks->file, bytes, length, (off_t)position);
    if (got < 0)
        return errno;
    return (size_t)got == length ? 0 : EIO;
}

/* One for each thread: to make one costs more than to use it. */
static __thread ZSTD_DCtx *context;
static __thread void *packed;
static __thread size_t packed_size;

static int prepare(size_t largest)
{
    if (context == NULL)
        context = ZSTD_createDCtx();
    if (packed_size < largest) {
        free(packed);
        packed = malloc(largest);
        packed_size = packed == NULL ? 0 : largest;
    }
    return context == NULL || packed == NULL ? ENOMEM : 0;
}

enum { HEAD = 2, PLAIN_HEAD = 0x8000 };

/* The two bytes before a block of metadata. */
static int read_head(const struct blocks *blocks, struct block *block, int *plain)
{
    unsigned char head[HEAD] = {0};
    int error = read_all(blocks, head, HEAD, block->position);
    unsigned word = head[0] | (unsigned)head[1] << 8;

    if (error != 0)
        return error;
    block->stored = word & (PLAIN_HEAD - 1);
    block->next = block->position + HEAD + block->stored;
    *plain = (word & PLAIN_HEAD) != 0;
    return 0;
}

static int unpack(const struct blocks *blocks, struct block *block, int plain)
{
    uint64_t position = block->position + (blocks->headed ? HEAD : 0);
    size_t length;
    int error = blocks->headed ? read_head(blocks, block, &plain) : 0;

    if (error != 0)
        return error;
    if (block->stored == 0 || block->stored > blocks->largest)
        return EIO;
    if (plain) {
        block->length = block->stored;
        return read_all(blocks, block->bytes, block->stored, position);
    }
    error = prepare(blocks->largest);
    if (error == 0)
        error = read_all(blocks, packed, block->stored, position);
    if (error != 0)
        return error;
    length = ZSTD_decompressDCtx(context, block->bytes, blocks->largest, packed, block->stored);
    if (ZSTD_isError(length))
        return EIO;
    block->length = length;
    return 0;
}

/* What is read ahead, if that is done; if it is not begun, who asks reads it. */
enum { WANTED, BEGUN, DONE, TAKEN };

static struct block *find_ahead(struct blocks *blocks, uint64_t position)
{
    for (size_t at = 0; at < blocks->ahead_count; at++) {
        struct ahead *ahead = &blocks->ahead[at];
        int state = WANTED;

        if (ahead->block.position != position)
            continue;
        if (!atomic_compare_exchange_strong(&ahead->state, &state, TAKEN) && state == DONE)
            return &ahead->block;
    }
    return NULL;
}

static struct block *find(struct blocks *blocks, uint64_t position)
{
    struct link *link = table_find(&blocks->table, position);

    return link != NULL ? (struct block *)link : find_ahead(blocks, position);
}

/* The one of the table that was not used for longest; NULL if all are in use. */
static struct block *take_oldest(struct blocks *blocks)
{
    for (struct link *link = blocks->table.oldest; link != NULL; link = link->newer)
        if (((struct block *)link)->users == 0) {
            table_remove(&blocks->table, link);
            return (struct block *)link;
        }
    return NULL;
}

/* One that was never used: only from now on it takes memory. */
static struct block *begin_one(struct blocks *blocks)
{
    size_t at = blocks->begun++;

    blocks->list[at].bytes = blocks->bytes + at * (blocks->largest + SPARE);
    return &blocks->list[at];
}

/* One that holds nothing, or can be done without; NULL if all are in use. */
static struct block *take_room(struct blocks *blocks)
{
    struct block *block = blocks->spare;

    if (block != NULL) {
        blocks->spare = (struct block *)block->link.chain;
        return block;
    }
    return blocks->begun < blocks->room ? begin_one(blocks) : take_oldest(blocks);
}

/* With the lock: the block, either there or to be read by the caller. */
static struct block *claim(struct blocks *blocks, uint64_t position, uint32_t stored)
{
    struct block *block;

    for (;;) {
        block = find(blocks, position);
        if (block != NULL && !block->busy)
            break;
        if (block == NULL && (block = take_room(blocks)) != NULL) {
            block->position = position;
            block->stored = stored;
            block->busy = 1;
            block->home = BLOCK_KEPT;
            table_add(&blocks->table, &block->link, position);
            break;
        }
        pthread_cond_wait(&blocks->ready, &blocks->lock);
    }
    block->users++;
    if (block->home == BLOCK_KEPT)
        table_touch(&blocks->table, &block->link);
    return block;
}

/* With the lock: what could not be read is not kept, and who asks again reads it again. */
static void settle(struct blocks *blocks, struct block *block, int error)
{
    block->error = error;
    block->busy = 0;
    if (error != 0) {
        table_remove(&blocks->table, &block->link);
        block->home = BLOCK_SPARE;
    }
    pthread_cond_broadcast(&blocks->ready);
}

struct block *blocks_get(struct blocks *blocks, uint64_t position, uint32_t stored, int plain)
{
    struct block *block;
    int mine, error;

    pthread_mutex_lock(&blocks->lock);
    block = claim(blocks, position, stored);
    mine = block->busy;
    pthread_mutex_unlock(&blocks->lock);
    if (mine) {
        error = unpack(blocks, block, plain);
        pthread_mutex_lock(&blocks->lock);
        settle(blocks, block, error);
        pthread_mutex_unlock(&blocks->lock);
    }
    if (block->error == 0)
        return block;
    errno = block->error;
    blocks_put(blocks, block);
    return NULL;
}

void blocks_put(struct blocks *blocks, struct block *block)
{
    int error = errno;

    pthread_mutex_lock(&blocks->lock);
    if (--block->users == 0) {
        if (block->home == BLOCK_SPARE) {
            block->link.chain = (struct link *)blocks->spare;
            blocks->spare = block;
        }
        pthread_cond_broadcast(&blocks->ready);
    }
    pthread_mutex_unlock(&blocks->lock);
    errno = error;
}

int blocks_ahead_begin(struct blocks *blocks, size_t most)
{
    struct ahead *ahead = calloc(most, sizeof *ahead);
    unsigned char *room = make_room(blocks->largest, most);

    if (ahead == NULL || room == NULL || prepare(blocks->largest) != 0) {
        free_room(room, blocks->largest, most);
        free(ahead);
        errno = ENOMEM;
        return -1;
    }
    for (size_t at = 0; at < most; at++)
        ahead[at].block.bytes = room + at * (blocks->largest + SPARE);
    blocks->ahead = ahead;
    blocks->ahead_most = most;
    return 0;
}

void blocks_ahead(struct blocks *blocks, uint64_t position, uint32_t stored, int plain)
{
    struct ahead *ahead = &blocks->ahead[blocks->ahead_count];

    if (blocks->ahead_count == blocks->ahead_most)
        return;
    ahead->plain = plain;
    ahead->block.position = position;
    ahead->block.stored = stored;
    ahead->block.home = BLOCK_STAYS;
    pthread_mutex_lock(&blocks->lock);
    blocks->ahead_count++;
    pthread_mutex_unlock(&blocks->lock);
}

/* Without the lock: who may be kept from running would keep it. */
void blocks_ahead_run(struct blocks *blocks)
{
    for (size_t at = 0; at < blocks->ahead_count; at++) {
        struct ahead *ahead = &blocks->ahead[at];
        int state = WANTED;

        if (!atomic_compare_exchange_strong(&ahead->state, &state, BEGUN))
            continue;
        if (unpack(blocks, &ahead->block, ahead->plain) == 0)
            atomic_store(&ahead->state, DONE);
        /* Kernels may let who runs go on until the next tick, whoever wants to run. */
        sched_yield();
    }
}
