/* Directories: their listings, and names found in them. */
#include "metadata.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

enum {
    LISTING_HEAD = 12,
    ENTRY_HEAD = 8,
    HEADS_MOST = 256,
    NOT_LISTED = 3,
    /* A listing up to this long is gone through from its beginning sooner than its map is asked. */
    SMALL = 2 * LISTING_STEP,
    COOKIE_SHIFT = 2,
};

/* Where we are in a listing. */
struct walk {
    struct squashfs *fs;
    const struct inode *directory;
    struct stream stream;
    uint64_t at, end; /* bytes of the listing */
    uint32_t left;    /* entries after the present head */
    uint32_t block, number;
    uint64_t marked; /* up to here a mark was passed, or made */
};

/* A listing of 4 GiB has cookies of 30 bits, and each entry its own: none is shorter than 9 bytes. */
static uint64_t cookie_of(uint64_t at)
{
    return at >> COOKIE_SHIFT;
}

static void walk_begin(struct walk *walk, struct squashfs *fs, const struct inode *directory)
{
    memset(walk, 0, sizeof *walk);
    walk->fs = fs;
    walk->directory = directory;
    walk->end = directory->size > NOT_LISTED ? directory->size - NOT_LISTED : 0;
    stream_begin(&walk->stream, fs, &directory->list);
}

static void walk_end(struct walk *walk)
{
    stream_end(&walk->stream);
}

static const unsigned char *walk_take(struct walk *walk, size_t length, unsigned char *spare)
{
    if (length > walk->end - walk->at) {
        broken();
        return NULL;
    }
    walk->at += length;
    return stream_take(&walk->stream, length, spare);
}

/* The next entries have a head in common. */
static int take_head(struct walk *walk)
{
    unsigned char spare[LISTING_HEAD];
    const unsigned char *head = walk_take(walk, LISTING_HEAD, spare);

    if (head == NULL)
        return -1;
    walk->left = get32(head) + 1;
    walk->block = get32(head + 4);
    walk->number = get32(head + 8);
    return walk->left == 0 || walk->left > HEADS_MOST ? broken() : 0;
}

/* Whether a name would lead out of its directory, or nowhere. */
static int leads_astray(const struct entry *entry)
{
    return memchr(entry->name, '/', entry->length) != NULL ||
           strlen(entry->name) != entry->length || strcmp(entry->name, ".") == 0 ||
           strcmp(entry->name, "..") == 0;
}

static int take_name(struct walk *walk, struct entry *entry)
{
    const unsigned char *name;

    name = walk_take(walk, entry->length, (unsigned char *)entry->name);
    if (name == NULL)
        return -1;
    if (name != (unsigned char *)entry->name)
        memcpy(entry->name, name, entry->length);
    entry->name[entry->length] = '\0';
    return leads_astray(entry) ? broken() : 0;
}

static int take_entry(struct walk *walk, struct entry *entry)
{
    static const unsigned char types[] = {DT_UNKNOWN, DT_DIR, DT_REG,  DT_LNK,
                                          DT_BLK,     DT_CHR, DT_FIFO, DT_SOCK};
    unsigned char spare[ENTRY_HEAD];
    const unsigned char *head = walk_take(walk, ENTRY_HEAD, spare);
    unsigned type;

    if (head == NULL)
        return -1;
    type = get16(head + 4);
    entry->length = (size_t)get16(head + 6) + 1;
    if (entry->length > SQUASHFS_NAME_LONGEST || type == 0 || type >= sizeof types)
        return broken();
    entry->type = types[type];
    /* A difference of two's complement. */
    entry->number = walk->number + (get16(head + 2) ^ 0x8000u) - 0x8000u;
    entry->reference = (uint64_t)walk->block << 16 | get16(head);
    walk->left--;
    return take_name(walk, entry);
}

static int is_large(const struct inode *directory)
{
    return directory->size > SMALL;
}

/* The first entry after a head, which others may want to begin with. */
static int take_marked(struct walk *walk, struct entry *entry)
{
    const struct listing_mark mark = {walk->stream.place, walk->at};

    if (take_head(walk) < 0 || take_entry(walk, entry) < 0)
        return -1;
    if (is_large(walk->directory) && mark.at - walk->marked >= LISTING_STEP) {
        maps_add(&walk->fs->maps, walk->directory->reference, &mark, entry->name, entry->length);
        walk->marked = mark.at;
    }
    return 0;
}

/* The next entry: 1; 0 at the end. */
static int walk_next(struct walk *walk, struct entry *entry)
{
    if (walk->left == 0 && walk->at == walk->end)
        return 0;
    return (walk->left == 0 ? take_marked(walk, entry) : take_entry(walk, entry)) < 0 ? -1 : 1;
}

/* A large directory has an index: at which bytes which heads are, and the first name after each. */
static int learn_one(struct squashfs *fs, const struct inode *directory, struct stream *stream)
{
    unsigned char head[LISTING_HEAD];
    char name[SQUASHFS_NAME_LONGEST];
    struct listing_mark mark;
    size_t length;

    if (stream_read(stream, head, sizeof head) < 0)
        return -1;
    mark.at = get32(head);
    length = (size_t)get32(head + 8) + 1;
    if (length == 0 || length > sizeof name || stream_read(stream, name, length) < 0)
        return broken();
    mark.place.block = fs->directories + get32(head + 4);
    /* The offset in the block goes on from where the listing began. */
    mark.place.offset = (uint32_t)((directory->list.offset + mark.at) % METADATA);
    if (mark.at + NOT_LISTED < directory->size)
        maps_add(&fs->maps, directory->reference, &mark, name, length);
    return 0;
}

/* Without an index, or with one that is damaged, it is learned by walking. */
static void learn(struct squashfs *fs, const struct inode *directory)
{
    struct stream stream;

    if (maps_know(&fs->maps, directory->reference))
        return;
    stream_begin(&stream, fs, &directory->index);
    for (uint32_t at = 0; at < directory->indexes; at++)
        if (learn_one(fs, directory, &stream) < 0)
            break;
    stream_end(&stream);
}

static void walk_from(struct walk *walk, const struct listing_mark *mark)
{
    walk->at = walk->marked = mark->at;
    stream_seek(&walk->stream, &mark->place);
}

/* Go near a name. */
static void walk_to_name(struct walk *walk, const char *name, size_t length)
{
    struct listing_mark mark;

    if (!is_large(walk->directory))
        return;
    learn(walk->fs, walk->directory);
    if (maps_before_name(&walk->fs->maps, walk->directory->reference, name, length, &mark))
        walk_from(walk, &mark);
}

/* Go near a place. */
static void walk_to(struct walk *walk, uint64_t cookie)
{
    const uint64_t most = ((cookie + 1) << COOKIE_SHIFT) - 1;
    struct listing_mark mark;

    if (!is_large(walk->directory))
        return;
    learn(walk->fs, walk->directory);
    if (maps_before(&walk->fs->maps, walk->directory->reference, most, &mark))
        walk_from(walk, &mark);
}

static int find_name(struct walk *walk, const char *name, size_t length, uint64_t *reference)
{
    struct entry entry;
    int found = 0, order = -1;

    while (order < 0 && (found = walk_next(walk, &entry)) > 0)
        order = compare_names(entry.name, entry.length, name, length);
    if (order == 0) {
        *reference = entry.reference;
        return 0;
    }
    /* They are sorted: behind a larger one it is not. */
    if (order > 0 || found == 0)
        errno = ENOENT;
    return -1;
}

int squashfs_lookup(struct squashfs *fs, const struct inode *directory, const char *name,
                    size_t length, uint64_t *reference)
{
    struct walk walk;
    int result;

    if (!S_ISDIR(directory->mode)) {
        errno = ENOTDIR;
        return -1;
    }
    walk_begin(&walk, fs, directory);
    walk_to_name(&walk, name, length);
    result = find_name(&walk, name, length, reference);
    walk_end(&walk);
    return result;
}

/* Those whose cookie is larger than the one that the last one had. */
static int list_after(struct walk *walk, uint64_t cookie,
                      int (*each)(void *closure, const struct entry *entry, uint64_t next),
                      void *closure)
{
    struct entry entry;
    int found;

    while ((found = walk_next(walk, &entry)) > 0) {
        uint64_t next = cookie_of(walk->at);

        if (next > cookie && each(closure, &entry, next) != 0)
            return 0;
    }
    return found;
}

int squashfs_list(struct squashfs *fs, const struct inode *directory, uint64_t cookie,
                  int (*each)(void *closure, const struct entry *entry, uint64_t next),
                  void *closure)
{
    struct walk walk;
    int result;

    if (!S_ISDIR(directory->mode)) {
        errno = ENOTDIR;
        return -1;
    }
    walk_begin(&walk, fs, directory);
    /* What lies behind the end is the end. */
    if (cookie > 0 && cookie >= cookie_of(walk.end))
        return 0;
    walk_to(&walk, cookie);
    result = list_after(&walk, cookie, each, closure);
    walk_end(&walk);
    return result;
}
