#include "squashfs.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    SUPERBLOCK = 96,
    ZSTD = 6,
    METADATA = 8192,
    PLAIN_DATA = 1 << 24,
    NO_FRAGMENT = -1,
    METADATA_BLOCKS = 512, /* 4 MiB at most */
    DATA_BLOCKS = 64,
    DATA_BLOCKS_LEAST = 4,
    BLOCKS_MOST = 1 << 28, /* of a file */
    FLAG_NO_XATTRS = 0x200,
};

enum { DIRECTORY = 1, REGULAR, SYMLINK, BLOCK, CHARACTER, FIFO, SOCKET, EXTENDED = 7 };

static uint16_t get16(const unsigned char *bytes)
{
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

static uint32_t get32(const unsigned char *bytes)
{
    return (uint32_t)get16(bytes) | (uint32_t)get16(bytes + 2) << 16;
}

static uint64_t get64(const unsigned char *bytes)
{
    return (uint64_t)get32(bytes) | (uint64_t)get32(bytes + 4) << 32;
}

static int broken(void)
{
    errno = EIO;
    return -1;
}

/* ------------------------------------------------------------------------------ metadata */

/* Read from a table, and move on in it. */
static int metadata_read(struct squashfs *fs, struct place *place, void *bytes, size_t length)
{
    while (length > 0) {
        size_t part;
        struct block *block = blocks_get(&fs->metadata, place->block, 0, 0);

        if (block == NULL)
            return -1;
        if (place->offset > block->length ||
            (place->offset == block->length && block->length < METADATA)) {
            blocks_put(&fs->metadata, block);
            return broken();
        }
        part = block->length - place->offset;
        part = part < length ? part : length;
        if (bytes != NULL) {
            memcpy(bytes, block->bytes + place->offset, part);
            bytes = (char *)bytes + part;
        }
        length -= part;
        place->offset += (uint32_t)part;
        if (place->offset == METADATA)
            *place = (struct place){block->next, 0};
        blocks_put(&fs->metadata, block);
    }
    return 0;
}

/* Entry number `at`, of `size` bytes, of a table whose blocks are listed at `table`. */
static int table_read(struct squashfs *fs, uint64_t table, uint64_t at, void *bytes, size_t size)
{
    uint64_t byte = at * size;
    unsigned char pointer[8];
    struct place place;

    if (table > fs->end || pread(fs->file, pointer, sizeof pointer,
                                 (off_t)(table + byte / METADATA * 8)) != sizeof pointer)
        return broken();
    place = (struct place){get64(pointer), (uint32_t)(byte % METADATA)};
    return metadata_read(fs, &place, bytes, size);
}

/* ----------------------------------------------------------------------------- superblock */

enum squashfs_kind squashfs_kind(int file)
{
    unsigned char super[SUPERBLOCK];

    if (pread(file, super, sizeof super, 0) != sizeof super || memcmp(super, "hsqs", 4) != 0 ||
        get16(super + 28) != 4 || get16(super + 30) != 0)
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
        pread(file, super, sizeof super, 0) != sizeof super)
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
    pthread_mutex_init(&fs->lock, NULL);
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
    for (size_t at = 0; at < SQUASHFS_CURSORS; at++)
        free(fs->extents[at].runs);
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

/* ---------------------------------------------------------------------------- directories */

enum { LISTING_HEAD = 12, ENTRY_HEAD = 8, HEADS_MOST = 256, NOT_LISTED = 3 };

/* Where we are in a listing: its position as a cookie is the byte of the head and that of the next
   entry after it. */
struct walk {
    struct place place;
    uint64_t at, end; /* bytes of the listing */
    uint64_t head;    /* of the present one; */
    uint32_t left;    /* entries after it */
    uint32_t block, number;
};

static void walk_begin(struct walk *walk, const struct inode *directory)
{
    memset(walk, 0, sizeof *walk);
    walk->place = directory->list;
    walk->end = directory->size > NOT_LISTED ? directory->size - NOT_LISTED : 0;
}

static int walk_take(struct squashfs *fs, struct walk *walk, void *bytes, size_t length)
{
    if (length > walk->end - walk->at)
        return broken();
    walk->at += length;
    return metadata_read(fs, &walk->place, bytes, length);
}

/* The next entry: 1; 0 at the end. */
static int walk_next(struct squashfs *fs, struct walk *walk, struct entry *entry)
{
    static const unsigned char types[] = {DT_UNKNOWN, DT_DIR, DT_REG,  DT_LNK,
                                          DT_BLK,     DT_CHR, DT_FIFO, DT_SOCK};
    unsigned char head[LISTING_HEAD];
    unsigned type;

    if (walk->left == 0) {
        if (walk->at == walk->end)
            return 0;
        walk->head = walk->at;
        if (walk_take(fs, walk, head, LISTING_HEAD) < 0)
            return -1;
        walk->left = get32(head) + 1;
        walk->block = get32(head + 4);
        walk->number = get32(head + 8);
        if (walk->left == 0 || walk->left > HEADS_MOST)
            return broken();
    }
    if (walk_take(fs, walk, head, ENTRY_HEAD) < 0)
        return -1;
    type = get16(head + 4);
    entry->length = (size_t)get16(head + 6) + 1;
    if (entry->length > SQUASHFS_NAME_LONGEST || type == 0 || type > EXTENDED ||
        walk_take(fs, walk, entry->name, entry->length) < 0)
        return broken();
    entry->name[entry->length] = '\0';
    entry->type = types[type];
    /* A difference of two's complement. */
    entry->number = walk->number + (get16(head + 2) ^ 0x8000u) - 0x8000u;
    entry->reference = (uint64_t)walk->block << 16 | get16(head);
    walk->left--;
    /* What would lead out of its directory, or nowhere. */
    if (memchr(entry->name, '/', entry->length) != NULL || strlen(entry->name) != entry->length ||
        strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0)
        return broken();
    return 1;
}

static int compare(const char *a, size_t a_length, const char *b, size_t b_length)
{
    int order = memcmp(a, b, a_length < b_length ? a_length : b_length);

    return order != 0 ? order : (a_length > b_length) - (a_length < b_length);
}

/* Large directories have an index: from where on names are at least so. */
static int walk_seek(struct squashfs *fs, struct walk *walk, const struct inode *directory,
                     const char *name, size_t length)
{
    struct place place = directory->index;

    for (uint32_t at = 0; at < directory->indexes; at++) {
        unsigned char head[LISTING_HEAD];
        char first[SQUASHFS_NAME_LONGEST];
        size_t size;

        if (metadata_read(fs, &place, head, sizeof head) < 0)
            return -1;
        size = (size_t)get32(head + 8) + 1;
        if (size > sizeof first || metadata_read(fs, &place, first, size) < 0)
            return broken();
        if (compare(first, size, name, length) > 0 || get32(head) > walk->end)
            break;
        /* The offset in the block goes on from where the listing began. */
        walk->at = get32(head);
        walk->place.block = fs->directories + get32(head + 4);
        walk->place.offset = (uint32_t)((directory->list.offset + walk->at) % METADATA);
    }
    return 0;
}

int squashfs_lookup(struct squashfs *fs, const struct inode *directory, const char *name,
                    size_t length, uint64_t *reference)
{
    struct walk walk;
    struct entry entry;
    int found, order;

    if (!S_ISDIR(directory->mode)) {
        errno = ENOTDIR;
        return -1;
    }
    walk_begin(&walk, directory);
    if (walk_seek(fs, &walk, directory, name, length) < 0)
        return -1;
    while ((found = walk_next(fs, &walk, &entry)) > 0) {
        order = compare(entry.name, entry.length, name, length);
        if (order == 0) {
            *reference = entry.reference;
            return 0;
        }
        /* They are sorted. */
        if (order > 0)
            break;
    }
    if (found >= 0)
        errno = ENOENT;
    return -1;
}

/* Go to the entry of a cookie: to its head, and over those before it. */
static int walk_to(struct squashfs *fs, struct walk *walk, uint64_t cookie)
{
    uint64_t head = cookie >> 32, at = cookie & UINT32_MAX;
    struct entry entry;
    int found = 1;

    if (cookie == 0)
        return 0;
    if (head >= at || at > walk->end)
        return broken();
    /* Blocks of metadata are as long as they are: only reading tells where the head is. */
    if (metadata_read(fs, &walk->place, NULL, head) < 0)
        return -1;
    walk->at = head;
    while (found > 0 && walk->at < at)
        found = walk_next(fs, walk, &entry);
    return found < 0 || walk->at != at ? broken() : 0;
}

int squashfs_list(struct squashfs *fs, const struct inode *directory, uint64_t cookie,
                  int (*each)(void *closure, const struct entry *entry, uint64_t next),
                  void *closure)
{
    struct walk walk;
    struct entry entry;
    int found;

    walk_begin(&walk, directory);
    if (walk_to(fs, &walk, cookie) < 0)
        return -1;
    while ((found = walk_next(fs, &walk, &entry)) > 0)
        if (each(closure, &entry, walk.head << 32 | walk.at) != 0)
            return 0;
    return found;
}

/* ---------------------------------------------------------------------------------- files */

static int has_fragment(const struct inode *inode)
{
    return inode->fragment != (uint32_t)NO_FRAGMENT;
}

static uint64_t block_count(const struct squashfs *fs, const struct inode *inode)
{
    uint64_t whole = inode->size / fs->block_size;

    return whole + (inode->size % fs->block_size != 0 && !has_fragment(inode));
}

/* Read the words of all blocks, and count up where they begin. */
static int count_up(struct squashfs *fs, const struct inode *inode, uint64_t count,
                    struct run *runs)
{
    struct place place = inode->list;
    uint64_t start = inode->start;

    for (uint64_t at = 0; at < count; at++) {
        unsigned char word[4];

        if (metadata_read(fs, &place, word, sizeof word) < 0)
            return -1;
        runs[at] = (struct run){start, get32(word)};
        start += runs[at].word & (PLAIN_DATA - 1);
    }
    return 0;
}

/* From malloc; NULL and errno. */
static struct run *read_runs(struct squashfs *fs, const struct inode *inode)
{
    uint64_t count = block_count(fs, inode);
    struct run *runs = NULL;

    errno = EIO;
    if (count <= BLOCKS_MOST)
        runs = calloc(count + 1, sizeof *runs);
    if (runs != NULL && count_up(fs, inode, count, runs) < 0) {
        free(runs);
        errno = EIO;
        return NULL;
    }
    return runs;
}

/* With the lock: the one for this inode, or else the one that was not used for longest. */
static struct extents *find_extents(struct squashfs *fs, uint64_t inode)
{
    struct extents *found = &fs->extents[0];

    for (size_t at = 0; at < SQUASHFS_CURSORS; at++) {
        struct extents *extents = &fs->extents[at];

        if (extents->runs != NULL && extents->inode == inode)
            return extents;
        if (extents->used < found->used)
            found = extents;
    }
    return found;
}

static int locate(struct squashfs *fs, const struct inode *inode, uint64_t number, uint64_t *start,
                  uint32_t *word)
{
    struct extents *extents;
    int good;

    pthread_mutex_lock(&fs->lock);
    extents = find_extents(fs, inode->reference);
    if (extents->runs == NULL || extents->inode != inode->reference) {
        free(extents->runs);
        extents->runs = read_runs(fs, inode);
        extents->inode = inode->reference;
    }
    extents->used = ++fs->clock;
    good = extents->runs != NULL;
    if (good) {
        *start = extents->runs[number].start;
        *word = extents->runs[number].word;
    }
    pthread_mutex_unlock(&fs->lock);
    return good ? 0 : -1;
}

/* The end of a file, if it shares a block with those of others. */
static int locate_fragment(struct squashfs *fs, const struct inode *inode, uint64_t *start,
                           uint32_t *word)
{
    unsigned char bytes[16];

    if (inode->fragment >= fs->fragment_count ||
        table_read(fs, fs->fragments, inode->fragment, bytes, sizeof bytes) < 0)
        return broken();
    *start = get64(bytes);
    *word = get32(bytes + 8);
    return 0;
}

/* Copy from one block of the file; what it lacks at its end is a hole, or damage. */
static int copy_part(struct squashfs *fs, const struct inode *inode, uint64_t number, void *bytes,
                     size_t offset, size_t length)
{
    int is_fragment = number >= block_count(fs, inode);
    uint64_t start;
    uint32_t word;
    struct block *block;

    if ((is_fragment ? locate_fragment(fs, inode, &start, &word)
                     : locate(fs, inode, number, &start, &word)) < 0)
        return -1;
    if (word == 0 && !is_fragment) {
        memset(bytes, 0, length);
        return 0;
    }
    if (is_fragment)
        offset += inode->fragment_offset;
    block = blocks_get(&fs->data, start, word & (PLAIN_DATA - 1), (word & PLAIN_DATA) != 0);
    if (block == NULL)
        return -1;
    if (length > block->length || offset > block->length - length) {
        blocks_put(&fs->data, block);
        return broken();
    }
    memcpy(bytes, block->bytes + offset, length);
    blocks_put(&fs->data, block);
    return 0;
}

ssize_t squashfs_read(struct squashfs *fs, const struct inode *inode, void *bytes, size_t size,
                      uint64_t offset)
{
    size_t done = 0;

    if (!S_ISREG(inode->mode))
        return broken();
    if (offset >= inode->size)
        return 0;
    if (size > inode->size - offset)
        size = (size_t)(inode->size - offset);
    while (done < size) {
        uint64_t at = offset + done;
        size_t within = at % fs->block_size, part = fs->block_size - within;

        part = part < size - done ? part : size - done;
        if (copy_part(fs, inode, at / fs->block_size, (char *)bytes + done, within, part) < 0)
            return done > 0 ? (ssize_t)done : -1;
        done += part;
    }
    return (ssize_t)done;
}

void squashfs_ahead(struct squashfs *fs, const struct inode *inode)
{
    uint64_t count = block_count(fs, inode), start;
    uint32_t word;

    for (uint64_t at = 0; at < count; at++) {
        if (fs->data.ahead_count == fs->data.ahead_most || locate(fs, inode, at, &start, &word) < 0)
            return;
        if (word != 0)
            blocks_ahead(&fs->data, start, word & (PLAIN_DATA - 1), (word & PLAIN_DATA) != 0);
    }
}
