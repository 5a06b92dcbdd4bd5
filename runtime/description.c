#include "description.h"

#include "fail.h"
#include "files.h"
#include "record.h"
#include "transient.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SUPERBLOCK = 96, BYTES_USED = 40, ALIGNMENT = 4096, LARGEST = 1 << 20 };

/* Without what it says of itself an image would run, but as another. */
static ssize_t read_at(int file, void *bytes, size_t length, uint64_t position)
{
    ssize_t got = transient_pread(file, bytes, length, (off_t)position);

    MUST(got, "cannot read the image");
    return got;
}

/* Where the squashfs ends, padding included; 0 if there is none. */
static uint64_t squashfs_end(int file)
{
    unsigned char block[SUPERBLOCK];
    uint64_t used = 0;

    if (read_at(file, block, sizeof block, 0) != sizeof block || memcmp(block, "hsqs", 4) != 0)
        return 0;
    for (int at = 7; at >= 0; at--)
        used = used << 8 | block[BYTES_USED + at];
    return used > INT64_MAX - ALIGNMENT ? 0 : (used + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Everything after the squashfs, with a NUL behind it; NULL if there is nothing to expect. */
static char *read_tail(int file, size_t *length)
{
    uint64_t start = squashfs_end(file);
    struct stat status;
    char *tail;

    MUST(transient_fstat(file, &status), "cannot read the image");
    if (start == 0 || (uint64_t)status.st_size <= start ||
        (uint64_t)status.st_size - start > LARGEST)
        return NULL;
    *length = (size_t)((uint64_t)status.st_size - start);
    tail = must_allocate(1, *length + 1);
    if (read_at(file, tail, *length, start) != (ssize_t)*length) {
        free(tail);
        return NULL;
    }
    return tail;
}

/* What every field `name` of the checked `fields` says, in a list that ends with NULL. */
static const char *const *read_list(const char *fields, size_t length, const char *name)
{
    size_t count = 0, most = 1, name_length = strlen(name);
    const char **list;

    for (const char *at = fields; at < fields + length; at++)
        most += *at == '\0';
    list = must_allocate(most, sizeof *list);
    for (const char *at = fields; at < fields + length; at += strlen(at) + 1)
        if (strncmp(at, name, name_length) == 0 && at[name_length] == '=')
            list[count++] = at + name_length + 1;
    return list;
}

void description_read(struct description *description, int file)
{
    size_t length = 0, head, text, fields;
    char *tail = read_tail(file, &length);
    const char *why;
    int scanned = 0;

    memset(description, 0, sizeof *description);
    if (tail == NULL ||
        sscanf(tail, "shifter-lite image 1 %7zu %7zu%n", &text, &fields, &scanned) != 2 ||
        tail[scanned] != '\n')
        return;
    head = (size_t)scanned + 1 + text;
    if (head > length || fields > length - head ||
        fields_check("image", tail + head, fields, &why) != RECORD_READ)
        return;
    description->is_whole = 1;
    description->is_imported = fields_find(tail + head, fields, "imported") != NULL;
    description->passwd = fields_find(tail + head, fields, "passwd");
    description->group = fields_find(tail + head, fields, "group");
    description->libs = read_list(tail + head, fields, "libs");
}
