/* What nearly every program reads as it starts, decompressed before it asks. */
#ifndef SHIFTER_AHEAD_H
#define SHIFTER_AHEAD_H

#include "squashfs.h"

/* Name it (blocks_ahead); -1 and errno if there is no memory. */
int ahead_plan(struct squashfs *fs);

/* Plan and read it, in a thread of its own that ends with it, if one of the `processors` has nothing else to do. */
void ahead_begin(struct squashfs *fs, int processors);

#endif
