/* Files: where their blocks are, their bytes, and their holes. */
#include "metadata.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

enum {
    PLAIN_DATA = 1 << 24,
    NO_FRAGMENT = -1,
    WORD = 4,
    /* Blocks from one mark to the next, at least. */
    FILE_STEP = 1024,
    /* No file has more blocks; what says so would only be counted for minutes. */
    BLOCKS_MOST = 1 << 28,
    AHEAD_LOOKED_AT = 256,
};

static int has_fragment(const struct inode *inode)
{
    return inode->fragment != (uint32_t)NO_FRAGMENT;
}

static uint64_t block_count(const struct squashfs *fs, const struct inode *inode)
{
    uint64_t whole = inode->size / fs->block_size;

    return whole + (inode->size % fs->block_size != 0 && !has_fragment(inode));
}

static uint32_t stored(uint32_t word)
{
    return word & (PLAIN_DATA - 1);
}

/* ---------------------------------------------------------------- the list of a file's blocks */

/* A block of a file, and the place of the next one's word.  Only all words before tell where a block
   is, so those of large files are remembered that are some way apart. */
struct cursor {
    struct squashfs *fs;
    const struct inode *inode;
    struct stream stream;
    uint64_t number, count, step;
    struct file_mark mark; /* of block `number` */
    uint32_t word;         /* how long it is, and whether it is compressed */
};

static uint64_t step_of(uint64_t count)
{
    uint64_t step = FILE_STEP;

    while (count / step > FILE_MARKS_MOST)
        step *= 2;
    return step;
}

static int is_at_mark(const struct cursor *cursor)
{
    return cursor->number % cursor->step == 0 && cursor->number > 0;
}

/* Read the word of the present block. */
static int take_word(struct cursor *cursor)
{
    unsigned char spare[WORD];
    const unsigned char *word;

    cursor->mark.place = cursor->stream.place;
    if (is_at_mark(cursor))
        maps_file_add(&cursor->fs->maps, cursor->inode->reference, cursor->number / cursor->step,
                      &cursor->mark);
    word = stream_take(&cursor->stream, WORD, spare);
    if (word == NULL || cursor->number >= BLOCKS_MOST)
        return broken();
    cursor->word = get32(word);
    return 0;
}

/* On to the next block, which the file must have unless it is at its end. */
static int cursor_next(struct cursor *cursor)
{
    cursor->mark.start += stored(cursor->word);
    cursor->mark.holes += cursor->word == 0;
    cursor->number++;
    return cursor->number < cursor->count ? take_word(cursor) : 0;
}

/* Go to mark `at`, or the last one known before it, if that is further on: 1; its word is next. */
static int cursor_jump(struct cursor *cursor, uint64_t at)
{
    struct file_mark mark;

    at = maps_file_before(&cursor->fs->maps, cursor->inode->reference, at, &mark);
    if (at * cursor->step <= cursor->number)
        return 0;
    cursor->number = at * cursor->step;
    cursor->mark = mark;
    stream_seek(&cursor->stream, &mark.place);
    return 1;
}

/* Begin at a block that the file has.  To be ended whatever it returns. */
static int cursor_begin(struct cursor *cursor, struct squashfs *fs, const struct inode *inode,
                        uint64_t number)
{
    const uint64_t count = block_count(fs, inode);

    *cursor = (struct cursor){.fs = fs, .inode = inode, .count = count, .step = step_of(count)};
    cursor->mark.start = inode->start;
    stream_begin(&cursor->stream, fs, &inode->list);
    if (number >= BLOCKS_MOST)
        return broken();
    if (number >= cursor->step)
        cursor_jump(cursor, number / cursor->step);
    if (take_word(cursor) < 0)
        return -1;
    while (cursor->number < number)
        if (cursor_next(cursor) < 0)
            return -1;
    return 0;
}

static void cursor_end(struct cursor *cursor)
{
    stream_end(&cursor->stream);
}

/* ------------------------------------------------------------------------------------- bytes */

/* Copy from a block as it is stored. */
static int copy(struct squashfs *fs, uint64_t start, uint32_t word, void *bytes, size_t offset,
                size_t length)
{
    struct block *block = blocks_get(&fs->data, start, stored(word), (word & PLAIN_DATA) != 0);
    int fits;

    if (block == NULL)
        return -1;
    fits = length <= block->length && offset <= block->length - length;
    if (fits)
        memcpy(bytes, block->bytes + offset, length);
    blocks_put(&fs->data, block);
    return fits ? 0 : broken();
}

/* Copy from the end of a file, if it shares a block with those of others. */
static int copy_fragment(struct squashfs *fs, const struct inode *inode, void *bytes, size_t offset,
                         size_t length)
{
    unsigned char entry[16];

    if (inode->fragment >= fs->fragment_count ||
        table_read(fs, fs->fragments, inode->fragment, entry, sizeof entry) < 0)
        return broken();
    return copy(fs, get64(entry), get32(entry + 8), bytes, offset + inode->fragment_offset, length);
}

/* Copy from the cursor's block. */
static int copy_block(const struct cursor *cursor, char *bytes, size_t offset, size_t length)
{
    if (cursor->word != 0)
        return copy(cursor->fs, cursor->mark.start, cursor->word, bytes, offset, length);
    memset(bytes, 0, length);
    return 0;
}

/* Copy from the blocks that are the file's own. */
static int copy_blocks(struct squashfs *fs, const struct inode *inode, char *bytes, size_t size,
                       uint64_t offset)
{
    struct cursor cursor;
    int result = cursor_begin(&cursor, fs, inode, offset / fs->block_size);

    while (result == 0 && size > 0) {
        size_t within = offset % fs->block_size, part = fs->block_size - within;

        part = part < size ? part : size;
        result = copy_block(&cursor, bytes, within, part);
        bytes += part;
        offset += part;
        size -= part;
        if (result == 0 && size > 0)
            result = cursor_next(&cursor);
    }
    cursor_end(&cursor);
    return result;
}

ssize_t squashfs_read(struct squashfs *fs, const struct inode *inode, void *bytes, size_t size,
                      uint64_t offset)
{
    const uint64_t end = block_count(fs, inode) * fs->block_size;
    size_t whole;

    if (!S_ISREG(inode->mode))
        return broken();
    if (offset >= inode->size)
        return 0;
    if (size > inode->size - offset)
        size = (size_t)(inode->size - offset);
    whole = offset >= end ? 0 : size < end - offset ? size : (size_t)(end - offset);
    /* All or nothing: to the kernel what is missing from a reply lies behind the file's end. */
    if (whole > 0 && copy_blocks(fs, inode, bytes, whole, offset) < 0)
        return -1;
    if (whole < size && copy_fragment(fs, inode, (char *)bytes + whole,
                                      (size_t)((offset + whole) % fs->block_size), size - whole) < 0)
        return -1;
    return (ssize_t)size;
}

/* ------------------------------------------------------------------------------------- holes */

/* Over what the map says is all hole, or has none. */
static int skip(struct cursor *cursor, int over_holes)
{
    uint64_t at = cursor->number / cursor->step, to;

    if (!is_at_mark(cursor) || cursor->number >= cursor->count)
        return 0;
    to = maps_file_skip(&cursor->fs->maps, cursor->inode->reference, at, over_holes);
    return to > at && cursor_jump(cursor, to) ? take_word(cursor) : 0;
}

/* Go to the next block that is a hole, or is none; to the end if there is none. */
static int find_block(struct cursor *cursor, int for_hole)
{
    int result = 0;

    while (result == 0 && cursor->number < cursor->count && (cursor->word == 0) != for_hole) {
        result = cursor_next(cursor);
        if (result == 0)
            result = skip(cursor, !for_hole);
    }
    return result;
}

/* Where the next block that is a hole begins, or is none; at the end of the blocks if there is none. */
static int seek_block(struct squashfs *fs, const struct inode *inode, uint64_t offset, int for_hole,
                      uint64_t *found)
{
    struct cursor cursor;
    int result = cursor_begin(&cursor, fs, inode, offset / fs->block_size);

    if (result == 0)
        result = find_block(&cursor, for_hole);
    *found = cursor.number * fs->block_size;
    cursor_end(&cursor);
    return result;
}

int squashfs_seek(struct squashfs *fs, const struct inode *inode, uint64_t offset, int for_hole,
                  uint64_t *found)
{
    const uint64_t end = block_count(fs, inode) * fs->block_size;

    if (!S_ISREG(inode->mode))
        return broken();
    *found = offset;
    if (offset < end && offset < inode->size && seek_block(fs, inode, offset, for_hole, found) < 0)
        return -1;
    *found = *found < offset ? offset : *found;
    /* What shares a block with other files' ends is no hole; behind the end all is one. */
    if (for_hole && *found >= end)
        *found = inode->size;
    if (offset < inode->size && (for_hole || *found < inode->size))
        return 0;
    errno = ENXIO;
    return -1;
}

void squashfs_ahead(struct squashfs *fs, const struct inode *inode)
{
    struct cursor cursor;
    int result;

    if (block_count(fs, inode) == 0)
        return;
    result = cursor_begin(&cursor, fs, inode, 0);
    while (result == 0 && cursor.number < cursor.count && cursor.number < AHEAD_LOOKED_AT &&
           fs->data.ahead_count < fs->data.ahead_most) {
        if (cursor.word != 0)
            blocks_ahead(&fs->data, cursor.mark.start, stored(cursor.word),
                         (cursor.word & PLAIN_DATA) != 0);
        result = cursor_next(&cursor);
    }
    cursor_end(&cursor);
}
