/* Squashfs 4.0, to be read (the kernel's Documentation/filesystems/squashfs.rst, and
   fs/squashfs/squashfs_fs.h).  Nothing in the file is trusted: what breaks the format is EIO. */
#ifndef SHIFTER_SQUASHFS_H
#define SHIFTER_SQUASHFS_H

#include "blocks.h"
#include "maps.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { SQUASHFS_NAME_LONGEST = 256 };

struct squashfs {
    int file;
    uint64_t root, end;
    uint64_t inodes, directories, fragments; /* where the tables begin */
    uint32_t block_size, fragment_count, inode_count;
    uint32_t *ids;
    size_t id_count;
    struct blocks data, metadata;
    struct maps maps;
};

struct inode {
    uint64_t reference;
    mode_t mode;
    uint32_t uid, gid, mtime, number, links, device;
    uint64_t size;
    struct place list; /* directory: its listing; file: the words of its blocks; link: its target */
    uint64_t start;    /* file: the first block; */
    uint64_t holes;    /* so many of its bytes are not stored, because they are zero */
    uint32_t fragment, fragment_offset;
    uint32_t indexes; /* directory: so many, at `list_index` */
    struct place index;
    uint32_t parent;
};

struct entry {
    uint64_t reference;
    uint32_t number;
    unsigned type; /* DT_… of dirent.h */
    size_t length;
    char name[SQUASHFS_NAME_LONGEST + 1];
};

enum squashfs_kind {
    SQUASHFS_OURS,    /* can be served */
    SQUASHFS_FOREIGN, /* another compression, or extended attributes: others can */
    SQUASHFS_DAMAGED
};

/* What kind of squashfs is in `file`, from its superblock alone. */
enum squashfs_kind squashfs_kind(int file);

/* Begin to read it, with little memory at first; -1 and errno. */
int squashfs_begin(struct squashfs *fs, int file);

/* Use as much as may be of use. */
void squashfs_widen(struct squashfs *fs);

/* Free what it has taken; nobody may read it any more. */
void squashfs_end(struct squashfs *fs);

/* All of these: -1 and errno, EIO for what breaks the format. */
int squashfs_inode(struct squashfs *fs, uint64_t reference, struct inode *inode);
int squashfs_lookup(struct squashfs *fs, const struct inode *directory, const char *name,
                    size_t length, uint64_t *reference);
ssize_t squashfs_readlink(struct squashfs *fs, const struct inode *inode, char *target,
                          size_t size);
ssize_t squashfs_read(struct squashfs *fs, const struct inode *inode, void *bytes, size_t size,
                      uint64_t offset);

/* From `offset` on, where the next hole begins, or else the next byte that is stored: as lseek(2)
   has it, and ENXIO. */
int squashfs_seek(struct squashfs *fs, const struct inode *inode, uint64_t offset, int for_hole,
                  uint64_t *found);

/* The file's blocks are those that will be asked for next (blocks_ahead). */
void squashfs_ahead(struct squashfs *fs, const struct inode *inode);

/* Call `each` for the directory's entries from the cookie on, 0 for the first, with the cookie of
   the next, until it returns nonzero.  Cookies are the same for ever, grow, and are between 4 and
   2^30, since programs of 32 bits get them; any other number is the place of one, too. */
int squashfs_list(struct squashfs *fs, const struct inode *directory, uint64_t cookie,
                  int (*each)(void *closure, const struct entry *entry, uint64_t next),
                  void *closure);

#endif
