/* The new root without overlayfs, for kernels that have none for users. */
#ifndef SHIFTER_UNDERLAY_H
#define SHIFTER_UNDERLAY_H

/* Complete the skeleton with what the image has and it lacks, each thing bound by itself, and make
   it the new root.  Only directories that the skeleton has too are taken apart. */
void underlay_build(void);

#endif
