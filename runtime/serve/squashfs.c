#include "metadata.h"

#include "../transient.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    SUPERBLOCK = 96,
    ZSTD = 6,
    METADATA_BLOCKS = 512, /* 4 MiB at most */
    DATA_BLOCKS = 64,
    DATA_BLOCKS_LEAST = 4,
};

enum { DIRECTORY = 1, REGULAR, SYMLINK, BLOCK, CHARACTER, FIFO, SOCKET, EXTENDED = 7 };

/* ----------------------------------------------------------------------------- superblock */

enum squashfs_kind squashfs_kind(int file)
{
    unsigned char super[SUPERBLOCK];

    if (transient_pread(file, super, sizeof super, 0) != sizeof super ||
        memcmp(super, "hsqs", 4) != 0 || get16(super + 28) != 4 ||
        get16(super + 30) != 0)
        return SQUASHFS_DAMAGED;
    if (get16(super + 20) != ZSTD || get64(super + 56) != UINT64_MAX)
        return SQUASHFS_FOREIGN;
    return SQUASHFS_OURS;
}

static int read_ids(struct squashfs *fs, uint64_t table)
{
    fs->ids = calloc(fs->id_count + 1, sizeof *fs->ids);
    if (fs->ids == NULL)
        return -1;
    for (size_t at = 0; at < fs->id_count; at++) {
        unsigned char id[4];

        if (table_read(fs, table, at, id, sizeof id) < 0)
            return -1;
        fs->ids[at] = get32(id);
    }
    return 0;
}

int squashfs_begin(struct squashfs *fs, int file)
{
    unsigned char super[SUPERBLOCK];
    unsigned log;

    memset(fs, 0, sizeof *fs);
    fs->file = file;
    if (squashfs_kind(file) != SQUASHFS_OURS ||
        transient_pread(file, super, sizeof super, 0) != sizeof super)
        return broken();
    fs->inode_count = get32(super + 4);
    fs->block_size = get32(super + 12);
    fs->fragment_count = get32(super + 16);
    log = get16(super + 22);
    fs->id_count = get16(super + 26);
    fs->root = get64(super + 32);
    fs->end = get64(super + 40);
    fs->inodes = get64(super + 64);
    fs->directories = get64(super + 72);
    fs->fragments = get64(super + 80);
    if (log < 12 || log > 20 || fs->block_size != 1u << log || fs->end < SUPERBLOCK ||
        fs->end > INT64_MAX || fs->inodes > fs->end || fs->directories > fs->end)
        return broken();
    maps_begin(&fs->maps);
    if (blocks_begin(&fs->data, file, fs->end, fs->block_size, DATA_BLOCKS, 0) < 0 ||
        blocks_begin(&fs->metadata, file, fs->end, METADATA, METADATA_BLOCKS, 1) < 0)
        return -1;
    blocks_narrow(&fs->data, DATA_BLOCKS_LEAST);
    return read_ids(fs, get64(super + 48));
}

void squashfs_widen(struct squashfs *fs)
{
    blocks_widen(&fs->data);
}

void squashfs_end(struct squashfs *fs)
{
    maps_end(&fs->maps);
    free(fs->ids);
    blocks_end(&fs->data);
    blocks_end(&fs->metadata);
}

/* --------------------------------------------------------------------------------- inodes */

static int read_directory(struct squashfs *fs, struct inode *inode, struct place *place, int big)
{
    unsigned char bytes[24];
    uint32_t block;

    if (metadata_read(fs, place, bytes, big ? 24 : 16) < 0)
        return -1;
    if (big) {
        inode->links = get32(bytes);
        inode->size = get32(bytes + 4);
        block = get32(bytes + 8);
        inode->parent = get32(bytes + 12);
        inode->indexes = get16(bytes + 16);
        inode->list.offset = get16(bytes + 18);
        inode->index = *place;
    } else {
        block = get32(bytes);
        inode->links = get32(bytes + 4);
        inode->size = get16(bytes + 8);
        inode->list.offset = get16(bytes + 10);
        inode->parent = get32(bytes + 12);
    }
    inode->list.block = fs->directories + block;
    return 0;
}

static int read_file(struct squashfs *fs, struct inode *inode, struct place *place, int big)
{
    unsigned char bytes[40];

    if (metadata_read(fs, place, bytes, big ? 40 : 16) < 0)
        return -1;
    if (big) {
        inode->start = get64(bytes);
        inode->size = get64(bytes + 8);
        inode->holes = get64(bytes + 16);
        inode->links = get32(bytes + 24);
        inode->fragment = get32(bytes + 28);
        inode->fragment_offset = get32(bytes + 32);
    } else {
        inode->start = get32(bytes);
        inode->fragment = get32(bytes + 4);
        inode->fragment_offset = get32(bytes + 8);
        inode->size = get32(bytes + 12);
        inode->links = 1;
    }
    inode->list = *place;
    return inode->size > INT64_MAX ? broken() : 0;
}

static int read_rest(struct squashfs *fs, struct inode *inode, struct place *place, int type)
{
    unsigned char bytes[8];
    int kind = type > EXTENDED ? type - EXTENDED : type, big = type > EXTENDED;

    if (kind == DIRECTORY)
        return read_directory(fs, inode, place, big);
    if (kind == REGULAR)
        return read_file(fs, inode, place, big);
    if (metadata_read(fs, place, bytes, kind < FIFO ? 8 : 4) < 0)
        return -1;
    inode->links = get32(bytes);
    if (kind == SYMLINK) {
        inode->size = get32(bytes + 4);
        inode->list = *place;
    } else if (kind < FIFO) {
        /* As the kernel encodes numbers of devices, for us and for FUSE. */
        inode->device = get32(bytes + 4);
    }
    return 0;
}

int squashfs_inode(struct squashfs *fs, uint64_t reference, struct inode *inode)
{
    static const mode_t modes[] = {0,       S_IFDIR, S_IFREG, S_IFLNK,
                                   S_IFBLK, S_IFCHR, S_IFIFO, S_IFSOCK};
    struct place place = {fs->inodes + (reference >> 16), (uint32_t)(reference & 0xffff)};
    unsigned char head[16];
    unsigned type, user, group;

    memset(inode, 0, sizeof *inode);
    if (reference >> 48 != 0 || metadata_read(fs, &place, head, sizeof head) < 0)
        return broken();
    type = get16(head);
    user = get16(head + 4);
    group = get16(head + 6);
    if (type == 0 || type > 2 * EXTENDED || user >= fs->id_count || group >= fs->id_count)
        return broken();
    inode->reference = reference;
    inode->mode = modes[(type - 1) % EXTENDED + 1] | (get16(head + 2) & 07777);
    inode->uid = fs->ids[user];
    inode->gid = fs->ids[group];
    inode->mtime = get32(head + 8);
    inode->number = get32(head + 12);
    return read_rest(fs, inode, &place, (int)type);
}

ssize_t squashfs_readlink(struct squashfs *fs, const struct inode *inode, char *target, size_t size)
{
    struct place place = inode->list;

    if (!S_ISLNK(inode->mode) || inode->size > size)
        return broken();
    return metadata_read(fs, &place, target, inode->size) < 0 ? -1 : (ssize_t)inode->size;
}
