/* Paths and small text files. */
#ifndef SHIFTER_FILES_H
#define SHIFTER_FILES_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* No text file we read is larger: udiRoot.conf, a value of the index. */
enum { TEXT_MAX = 1 << 20 };

/* Files for the container's /etc are larger at some sites: a million users are 60 MiB.  An image's
   own ones are anybody's, and cost their reader memory. */
enum { SITE_FILE_MAX = 64 << 20, IMAGE_FILE_MAX = 16 << 20 };

/* Write a path into `path`; one that does not fit is a failure, never cut. */
void path_format(char path[PATH_MAX], const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Whether `path` is `directory` or lies beneath it, by their text. */
int path_within(const char *path, const char *directory);

/* `directory`, a slash, and `rest`, which may begin with one or be empty; from malloc. */
char *path_join(const char *directory, const char *rest);

/* The bytes of a regular file, with a NUL after them, from malloc; NULL and errno if it cannot be
   read or holds more than TEXT_MAX bytes. */
char *text_read(const char *path);

/* The same of a file that may hold NULs. */
char *bytes_read(const char *path, size_t *length);

/* The same of a file of at most `most` bytes. */
char *bytes_read_most(const char *path, size_t most, size_t *length);

/* The same of all that can be read from `fd`, whatever it is. */
char *bytes_of(int fd, size_t *length);

/* Create `path`, which must not exist, readable for all. */
void bytes_write(const char *path, const char *bytes, size_t length);

/* malloc, strdup: there is nothing to be done without memory. */
void *must_allocate(size_t count, size_t size);
char *must_copy(const char *text);

/* The list, with room for more than `count` elements of `size` bytes: `*room` says for how many. */
void *must_grow(void *list, size_t count, size_t *room, size_t size);

/* FNV-1a, 64 bits: not to be relied on against an enemy. */
uint64_t bytes_hash(const char *bytes, size_t length);

#endif
