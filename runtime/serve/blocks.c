#include "blocks.h"

#include <errno.h>
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

/* Memory for all blocks, which only those that are used take: in large pages, where the kernel has
   them, because to fault in small ones takes longer than to decompress what is put there.  Each
   has some to spare behind it, so that a checker of memory can see who reads too far. */
enum { SPARE = 4096 };

static int make_room(struct blocks *blocks)
{
    size_t each = blocks->largest + SPARE;
    char *room = mmap(NULL, blocks->count * each, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (room == MAP_FAILED)
        return -1;
    madvise(room, blocks->count * each, MADV_HUGEPAGE);
    UNPOISON(room, blocks->count * each);
    for (size_t at = 0; at < blocks->count; at++) {
        blocks->list[at].bytes = (unsigned char *)room + at * each;
        POISON(room + at * each + blocks->largest, SPARE);
    }
    return 0;
}

int blocks_begin(struct blocks *blocks, int file, uint64_t end, size_t largest, size_t count,
                 int headed)
{
    memset(blocks, 0, sizeof *blocks);
    blocks->file = file;
    blocks->end = end;
    blocks->largest = largest;
    blocks->count = count;
    blocks->headed = headed;
    blocks->list = calloc(count, sizeof *blocks->list);
    pthread_mutex_init(&blocks->lock, NULL);
    pthread_cond_init(&blocks->ready, NULL);
    if (blocks->list == NULL)
        return -1;
    return make_room(blocks);
}

void blocks_end(struct blocks *blocks)
{
    size_t size = blocks->count * (blocks->largest + SPARE);

    if (blocks->list != NULL && blocks->list[0].bytes != NULL) {
        UNPOISON(blocks->list[0].bytes, size);
        munmap(blocks->list[0].bytes, size);
    }
    free(blocks->list);
}

static int read_all(const struct blocks *blocks, void *bytes, size_t length, uint64_t position)
{
    size_t done = 0;

    if (length > blocks->end || position > blocks->end - length)
        return EIO;
    while (done < length) {
        ssize_t got = pread(blocks->file, (char *)bytes + done, length - done,
                            (off_t)(position + done));

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? errno : EIO;
        done += (size_t)got;
    }
    return 0;
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

static struct block *find(struct blocks *blocks, uint64_t position)
{
    for (size_t at = 0; at < blocks->count; at++)
        if (blocks->list[at].position == position && blocks->list[at].kept)
            return &blocks->list[at];
    return NULL;
}

/* The one that nobody has used for longest; NULL if all are in use. */
static struct block *oldest(struct blocks *blocks)
{
    struct block *found = NULL;

    for (size_t at = 0; at < blocks->count; at++) {
        struct block *block = &blocks->list[at];

        if (block->users == 0 && (found == NULL || block->used < found->used))
            found = block;
    }
    return found;
}

/* With the lock: the block, either there or to be read by the caller. */
static struct block *claim(struct blocks *blocks, uint64_t position, uint32_t stored)
{
    struct block *block;

    for (;;) {
        block = find(blocks, position);
        if (block != NULL && !block->busy)
            break;
        if (block == NULL && (block = oldest(blocks)) != NULL) {
            block->position = position;
            block->stored = stored;
            block->busy = block->kept = 1;
            break;
        }
        pthread_cond_wait(&blocks->ready, &blocks->lock);
    }
    block->users++;
    block->used = ++blocks->clock;
    return block;
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
        block->error = error;
        block->busy = 0;
        /* What could not be read is not kept. */
        if (error != 0)
            block->kept = 0;
        pthread_cond_broadcast(&blocks->ready);
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
    if (--block->users == 0)
        pthread_cond_broadcast(&blocks->ready);
    pthread_mutex_unlock(&blocks->lock);
    errno = error;
}
