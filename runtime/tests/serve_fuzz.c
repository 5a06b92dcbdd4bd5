/* Read a squashfs file, and damaged copies of it, to the last byte: nothing is read out of bounds
   (ASan and UBSan watch), nothing hangs.

       serve_fuzz FILE ROUNDS      for each round, say nothing; at last, how many could be read */
#include "../serve/ahead.h"

#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of a damaged directory tree no more is looked at: it may have a loop. */
enum { ENTRIES_MOST = 3000, DEPTH_MOST = 12, BYTES_MOST = 1 << 20 };

static uint64_t state = 88172645463325252u;
static unsigned budget;

static uint32_t random_below(size_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 11) % limit);
}

struct visit {
    struct squashfs *fs;
    const struct inode *directory;
    uint64_t last;
    int depth;
};

static void look_at(struct squashfs *fs, uint64_t reference, int depth);

static int each(void *closure, const struct entry *entry, uint64_t next)
{
    struct visit *visit = closure;
    uint64_t found;

    if (budget == 0)
        return 1;
    budget--;
    /* Else a listing might never end. */
    if (next <= visit->last)
        errx(1, "a cookie that is not larger than the one before");
    visit->last = next;
    if (squashfs_lookup(visit->fs, visit->directory, entry->name, entry->length, &found) == 0)
        look_at(visit->fs, found, visit->depth + 1);
    look_at(visit->fs, entry->reference, visit->depth + 1);
    return random_below(50) == 0;
}

static void read_some(struct squashfs *fs, const struct inode *inode)
{
    static char bytes[BYTES_MOST];
    uint64_t offset = inode->size > 0 && random_below(2) ? state % inode->size : 0;

    squashfs_read(fs, inode, bytes, 1 + random_below(sizeof bytes), offset);
}

/* Each hole is looked for from where the last one was found; that goes on and comes to an end. */
static void seek_some(struct squashfs *fs, const struct inode *inode)
{
    uint64_t at = inode->size > 0 && random_below(2) ? state % inode->size : 0, found;

    for (int round = 0; round < 50; round++) {
        if (squashfs_seek(fs, inode, at, round % 2, &found) < 0)
            return;
        if (found < at || found > inode->size)
            errx(1, "a hole before its place");
        at = found;
    }
}

/* Where a listing is asked to go on: anybody may ask for anything. */
static uint64_t any_cookie(const struct inode *inode, uint64_t last)
{
    switch (random_below(9)) {
    case 0:
        return state;
    case 1:
        return random_below(inode->size / 4 + 9);
    default:
        return last;
    }
}

static void look_at(struct squashfs *fs, uint64_t reference, int depth)
{
    char target[4096];
    struct inode inode;
    struct visit visit = {fs, &inode, 0, depth};

    if (depth > DEPTH_MOST || squashfs_inode(fs, reference, &inode) < 0)
        return;
    squashfs_readlink(fs, &inode, target, sizeof target);
    if (S_ISREG(inode.mode)) {
        read_some(fs, &inode);
        seek_some(fs, &inode);
    }
    if (!S_ISDIR(inode.mode))
        return;
    while (squashfs_list(fs, &inode, visit.last, each, &visit) == 0 && budget > 0 &&
           random_below(4) != 0)
        visit.last = any_cookie(&inode, visit.last);
}

static int try(int file)
{
    struct squashfs fs;
    int good;

    budget = ENTRIES_MOST;
    good = squashfs_begin(&fs, file) == 0;
    if (good && ahead_plan(&fs) == 0 && random_below(2))
        blocks_ahead_run(&fs.data);
    if (good)
        look_at(&fs, fs.root, 0);
    squashfs_end(&fs);
    return good;
}

static void damage(unsigned char *bytes, size_t size)
{
    for (uint32_t count = 1 + random_below(8); count > 0; count--) {
        /* Heads and tables are at both ends. */
        size_t span = random_below(3) == 0 ? 96 : random_below(2) ? 4096 : size;
        size_t from = random_below(2) && span < size ? size - span : 0;

        bytes[from + random_below(span < size ? span : size)] = (unsigned char)random_below(256);
    }
}

int main(int argc, char **argv)
{
    int file = argc == 3 ? open(argv[1], O_RDONLY) : -1, copy = memfd_create("copy", 0);
    unsigned char *good, *bad;
    struct stat status;
    long rounds, read = 0;

    if (file < 0 || copy < 0 || fstat(file, &status) < 0 || status.st_size < 4096)
        errx(2, "usage: serve_fuzz FILE ROUNDS");
    good = malloc((size_t)status.st_size);
    if (good == NULL || pread(file, good, (size_t)status.st_size, 0) != status.st_size ||
        ftruncate(copy, status.st_size) < 0)
        err(1, "%s", argv[1]);
    bad = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, copy, 0);
    if (bad == MAP_FAILED)
        err(1, "mmap");
    if (!try(file))
        errx(1, "the good one cannot be read");
    rounds = atol(argv[2]);
    for (long round = 0; round < rounds; round++) {
        memcpy(bad, good, (size_t)status.st_size);
        damage(bad, (size_t)status.st_size);
        read += try(copy);
    }
    printf("serve: %ld damaged images, %ld with a good head\n", rounds, read);
    return 0;
}
