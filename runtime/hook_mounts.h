/* Where hooks run, and what becomes of what they have mounted there. */
#ifndef SHIFTER_HOOK_MOUNTS_H
#define SHIFTER_HOOK_MOUNTS_H

#include "words.h"

#include <limits.h>
#include <stddef.h>
#include <sys/stat.h>

/* Mounts beneath the skeleton. */
struct below {
    struct mounted {
        unsigned long id;
        char *source; /* device and directory */
        char *place;  /* in the container */
    } *list;
    size_t count, room;
    struct words roots; /* the sources of the host's root */
};

/* The directories that Shifter makes before hooks run, so that scripts may rely on them. */
enum { STAGE_DIRECTORIES = 14 };

struct hook_stage {
    char place[PATH_MAX]; /* absolute: where the skeleton is while a hook runs */
    int is_moved;
    struct stat root;
    struct below before;
    int passing[STAGE_DIRECTORIES]; /* made here, to be taken away again if nothing is in it */
};

/* Make the skeleton ready for a hook, at `udi_mount` if that is a directory of the node. */
void hook_stage_begin(struct hook_stage *stage, const char *udi_mount);

/* Undo that, and restrict what the hook `script` has mounted: nothing set-uid, no devices, and of
   what the node mounts later something only if `is_slave`. */
void hook_stage_end(struct hook_stage *stage, const char *script, int is_slave, int is_writable);

/* Move all mounts of the skeleton into the root, which is an overlay and does not show them. */
void hook_mounts_carry(void);

#endif
