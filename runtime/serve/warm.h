/* Decompress what a start needs first, while the container is still being made. */
#ifndef SHIFTER_WARM_H
#define SHIFTER_WARM_H

#include "squashfs.h"

/* Read the loaders and C libraries that the image has: nearly everything that starts needs them. */
void warm(struct squashfs *fs);

#endif
