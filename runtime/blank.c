#include "blank.h"

#include "fail.h"

#include <sys/mman.h>
#include <unistd.h>

/* A squashfs 4.0 of one empty directory, of the kind that we serve ourselves (serve/squashfs.c):
   a superblock, then blocks of metadata that are not compressed, each after its length. */
enum {
    INODES = 96,
    DIRECTORIES = INODES + 2 + 32,
    IDS = DIRECTORIES,
    ID_TABLE = IDS + 2 + 4,
    END = ID_TABLE + 8,
    INODE = INODES + 2,
    PLAIN = 0x80, /* the upper byte of the length of what is not compressed */
    ZSTD = 6,
};

#define NOWHERE 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff

static const unsigned char blank[END] = {
    'h', 's', 'q', 's',
    [4] = 1, /* inode */
    [14] = 2, /* blocks of 2 << 16 bytes … */
    [20] = ZSTD,
    [22] = 17, /* … which is 1 << 17 */
    [26] = 1, /* owner */
    [28] = 4, /* the version */
    [40] = END,
    [48] = ID_TABLE,
    [56] = NOWHERE, /* attributes */
    [64] = INODES,
    [72] = DIRECTORIES,
    [80] = END, /* fragments */
    [88] = NOWHERE, /* exports */

    [INODES] = 32, PLAIN,
    [INODE] = 1, /* a directory */
    [INODE + 2] = 0755 & 0xff, 0755 >> 8,
    [INODE + 12] = 1, /* its number */
    [INODE + 20] = 2, /* links */
    [INODE + 24] = 3, /* bytes of a list that is empty */
    [INODE + 28] = 2, /* the number of what is above */

    [IDS] = 4, PLAIN,
    [ID_TABLE] = IDS,
};

int blank_image(void)
{
    int file = memfd_create("blank", MFD_CLOEXEC);

    if (file < 0 || write(file, blank, sizeof blank) != sizeof blank)
        fail(errno, NULL, "cannot make a small image in memory");
    return file;
}
