/* Which file a path leads to now.  A name alone does not say it: the directory behind it may be
   removed and made anew while a container still shows the old one. */
#ifndef SHIFTER_FILE_ID_H
#define SHIFTER_FILE_ID_H

#include <stdint.h>
#include <stdio.h>

struct file_id {
    int error; /* errno: there is no such file; the rest is 0 */
    uint64_t device, inode;
    uint64_t mount;   /* by which mount it is reached; 0 where the kernel does not say (5.8) */
    uint64_t handle;  /* hash of its file handle, which no later file has; 0: not needed, or none */
    uint64_t changed; /* ns: its last change of content or attributes */
    uint64_t size;
};

/* Look at the file that `path` leads to, links and automounts followed; relative to `directory`, or
   AT_FDCWD.  An empty path means the file open on `directory`. */
void file_id_read(struct file_id *id, int directory, const char *path);

/* The same of the file open on `directory`, which nothing will hold later. */
void file_id_read_free(struct file_id *id, int directory);

/* Whether both are one file, in whatever mount namespace they were looked at. */
int file_id_is_same(const struct file_id *one, const struct file_id *other);

/* A number that tells it from other files, in whatever mount namespace it is looked at. */
uint64_t file_id_hash(const struct file_id *id);

/* Write which file it is, for a key; `with_content` also which version of its content. */
void file_id_write(FILE *key, const struct file_id *id, int with_content);

/* Write the versions of all files in the directory `path`, without regard to their order. */
void file_id_write_all(FILE *key, const char *path);

#endif
