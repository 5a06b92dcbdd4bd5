/* Tables of metadata, read on and on: what the other files of the reader have in common. */
#ifndef SHIFTER_METADATA_H
#define SHIFTER_METADATA_H

#include "squashfs.h"

enum { METADATA = 8192 };

static inline uint16_t get16(const unsigned char *bytes)
{
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

static inline uint32_t get32(const unsigned char *bytes)
{
    return (uint32_t)get16(bytes) | (uint32_t)get16(bytes + 2) << 16;
}

static inline uint64_t get64(const unsigned char *bytes)
{
    return (uint64_t)get32(bytes) | (uint64_t)get32(bytes + 4) << 32;
}

/* The format is broken: -1 and errno. */
int broken(void);

/* A place that is read on from.  It has its block until stream_end, so that the next bytes cost no
   search and no lock. */
struct stream {
    struct squashfs *fs;
    struct place place;
    struct block *block; /* of `place`, or NULL */
};

void stream_begin(struct stream *stream, struct squashfs *fs, const struct place *place);
void stream_end(struct stream *stream);

/* Go elsewhere. */
void stream_seek(struct stream *stream, const struct place *place);

/* Copy, to `bytes` unless that is NULL, and move on; -1 and errno. */
int stream_read(struct stream *stream, void *bytes, size_t length);

/* The next `length` bytes, copied to `spare` if they are not in one block; NULL and errno. */
const unsigned char *stream_gather(struct stream *stream, size_t length, unsigned char *spare);

/* The same, for words and names: nearly always a step in the block that is there. */
static inline const unsigned char *stream_take(struct stream *stream, size_t length,
                                               unsigned char *spare)
{
    const struct block *block = stream->block;
    const size_t offset = stream->place.offset;

    /* With its last byte the block may go. */
    if (block == NULL || offset + length >= block->length)
        return stream_gather(stream, length, spare);
    stream->place.offset += (uint32_t)length;
    return block->bytes + offset;
}

/* Read from a place, and move on in it. */
int metadata_read(struct squashfs *fs, struct place *place, void *bytes, size_t length);

/* Entry number `at`, of `size` bytes, of a table whose blocks are listed at `table`. */
int table_read(struct squashfs *fs, uint64_t table, uint64_t at, void *bytes, size_t size);

#endif
