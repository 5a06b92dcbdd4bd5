/* What is remembered of large files and directories: places in their tables on the way, so that
   what lies far behind need not be reached from the beginning each time.  Everything together is
   bounded; what was not used for longest is forgotten, and learned again by reading.  Nothing is
   read here, so the lock is never held for long. */
#ifndef SHIFTER_MAPS_H
#define SHIFTER_MAPS_H

#include "table.h"

#include <pthread.h>

/* A place in a table of metadata: a block of it in the file, and a byte in that. */
struct place {
    uint64_t block;
    uint32_t offset;
};

struct maps {
    struct table table;
    size_t bytes;
    pthread_mutex_t lock;
};

/* Of a file: where the word of a block is, where the block is, and how many holes are before. */
struct file_mark {
    struct place place;
    uint64_t start, holes;
};

/* Of a directory: where a head is, and how many bytes of the listing are before. */
struct listing_mark {
    struct place place;
    uint64_t at;
};

enum {
    FILE_MARKS_MOST = 4096,
    LISTING_MARKS_MOST = 4096,
    LISTING_STEP = 4096, /* bytes between two marks, at least */
};

/* It takes memory only for what is remembered. */
void maps_begin(struct maps *maps);
void maps_end(struct maps *maps);

/* A file has marks 1, 2, … at equal distances, which are learned in this order.  The last one up to
   number `at`, and its number; 0 if there is none. */
uint64_t maps_file_before(struct maps *maps, uint64_t file, uint64_t at, struct file_mark *mark);

/* Learn mark `at`, unless it is known, or one before it is not. */
void maps_file_add(struct maps *maps, uint64_t file, uint64_t at, const struct file_mark *mark);

/* From mark `at` (not 0), which is known, the last mark up to which all are holes, or else none is. */
uint64_t maps_file_skip(struct maps *maps, uint64_t file, uint64_t at, int over_holes);

/* Whether the directory is known; from now on it is. */
int maps_know(struct maps *maps, uint64_t directory);

/* The last mark at a byte up to `at`, or whose first name is at most `name`; 0 if there is none. */
int maps_before(struct maps *maps, uint64_t directory, uint64_t at, struct listing_mark *mark);
int maps_before_name(struct maps *maps, uint64_t directory, const char *name, size_t length,
                     struct listing_mark *mark);

/* Learn a mark, unless there are enough near it. */
void maps_add(struct maps *maps, uint64_t directory, const struct listing_mark *mark,
              const char *name, size_t length);

/* As squashfs sorts names. */
int compare_names(const char *a, size_t a_length, const char *b, size_t b_length);

#endif
