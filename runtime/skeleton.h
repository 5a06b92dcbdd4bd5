/* The upper layer of the new root: what the container needs and the image lacks. */
#ifndef SHIFTER_SKELETON_H
#define SHIFTER_SKELETON_H

#include <stddef.h>

/* Make the directory `resolved`, an absolute path without links, and those above it; each that the
   image has too looks as it does there. */
void skeleton_directory(const char *resolved);

/* Put a file there, whose directory has been made. */
void skeleton_file(const char *resolved, const char *bytes, size_t length);

/* Put a symbolic link there, whose directory has been made. */
void skeleton_link(const char *resolved, const char *target);

/* Make an empty file for a mount to go over, and the directories above it. */
void skeleton_mount_point(const char *resolved);

/* Make a symbolic link and the directories above it, unless there is something already. */
void skeleton_new_link(const char *resolved, const char *target);

#endif
