#include "metadata.h"

#include "../transient.h"

#include <errno.h>
#include <string.h>

int broken(void)
{
    errno = EIO;
    return -1;
}

void stream_begin(struct stream *stream, struct squashfs *fs, const struct place *place)
{
    *stream = (struct stream){fs, *place, NULL};
}

void stream_end(struct stream *stream)
{
    if (stream->block != NULL)
        blocks_put(&stream->fs->metadata, stream->block);
    stream->block = NULL;
}

void stream_seek(struct stream *stream, const struct place *place)
{
    if (stream->block != NULL && place->block != stream->place.block)
        stream_end(stream);
    stream->place = *place;
}

/* How many bytes the present block still has, at least one; 0 and errno. */
static size_t left(struct stream *stream)
{
    const struct place *place = &stream->place;

    if (stream->block == NULL)
        stream->block = blocks_get(&stream->fs->metadata, place->block, 0, 0);
    if (stream->block == NULL)
        return 0;
    if (place->offset < stream->block->length)
        return stream->block->length - place->offset;
    errno = EIO;
    return 0;
}

/* Only a whole block is followed by another one. */
static void move(struct stream *stream, size_t length)
{
    stream->place.offset += (uint32_t)length;
    if (stream->place.offset == METADATA)
        stream_seek(stream, &(struct place){stream->block->next, 0});
}

int stream_read(struct stream *stream, void *bytes, size_t length)
{
    while (length > 0) {
        size_t part = left(stream);

        if (part == 0)
            return -1;
        part = part < length ? part : length;
        if (bytes != NULL) {
            memcpy(bytes, stream->block->bytes + stream->place.offset, part);
            bytes = (char *)bytes + part;
        }
        length -= part;
        move(stream, part);
    }
    return 0;
}

const unsigned char *stream_gather(struct stream *stream, size_t length, unsigned char *spare)
{
    return stream_read(stream, spare, length) < 0 ? NULL : spare;
}

int metadata_read(struct squashfs *fs, struct place *place, void *bytes, size_t length)
{
    struct stream stream;
    int result;

    stream_begin(&stream, fs, place);
    result = stream_read(&stream, bytes, length);
    *place = stream.place;
    stream_end(&stream);
    return result;
}

int table_read(struct squashfs *fs, uint64_t table, uint64_t at, void *bytes, size_t size)
{
    uint64_t byte = at * size;
    unsigned char pointer[8];
    struct place place;

    if (table > fs->end || transient_pread(fs->file, pointer, sizeof pointer,
                                 (off_t)(table + byte / METADATA * 8)) != sizeof pointer)
        return broken();
    place = (struct place){get64(pointer), (uint32_t)(byte % METADATA)};
    return metadata_read(fs, &place, bytes, size);
}
