/* The upper layer of the new root: what the container needs and the image lacks. */
#ifndef SHIFTER_SKELETON_H
#define SHIFTER_SKELETON_H

/* Make the directory `resolved`, an absolute path without links, and those above it; each that the
   image has too looks as it does there. */
void skeleton_directory(const char *resolved);

/* Put a file there. */
void skeleton_file(const char *resolved, const char *text);

#endif
