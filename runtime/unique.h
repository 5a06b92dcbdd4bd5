/* The names and numbers that the lines of one passwd or group file have so far.

   Lines come from several files, which are numbered in the order of their authority.  A name counts
   once.  A number may have several names in one file, as on the system that the file comes from;
   a later file cannot give it another name. */
#ifndef SHIFTER_UNIQUE_H
#define SHIFTER_UNIQUE_H

#include <stddef.h>
#include <stdint.h>

struct unique {
    struct unique_slot *slots;
    size_t count, room;
    uint64_t base; /* of the hash: an image that could guess it could make every look-up slow */
};

/* Begin with none; some `lines` are expected. */
void unique_begin(struct unique *set, size_t lines);

/* Add a name, which is not copied, and its number, for the file `source`, which is not 0.  0: one of
   them is taken, and nothing was added. */
int unique_add(struct unique *set, const char *name, size_t length, uint32_t number,
               uint32_t source);

void unique_end(struct unique *set);

#endif
