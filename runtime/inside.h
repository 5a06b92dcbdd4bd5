/* Paths inside the image, followed as if it were already the root. */
#ifndef SHIFTER_INSIDE_H
#define SHIFTER_INSIDE_H

#include <limits.h>
#include <sys/stat.h>

/* Where the parts of the new root lie, relative to the tmpfs that holds them. */
#define IMAGE_DIR "image"       /* the image as it is */
#define SKELETON_DIR "skeleton" /* what the container needs and the image lacks */
#define ROOT_DIR "root"         /* the one laid over the other */

/* Resolve `path` in the image: `resolved` is absolute and without symbolic links.  What does not
   exist stands as it is written.  Returns the mode of what is there, or 0. */
mode_t inside_resolve(const char *path, char resolved[PATH_MAX]);

/* The same, but `resolved` is empty if there are too many links. */
mode_t inside_try_resolve(const char *path, char resolved[PATH_MAX]);

/* From now on what hooks have made and mounted in the skeleton counts as if the image had it. */
void inside_see_skeleton(void);

/* Whether `resolved` is on, or would be made in, a filesystem that a hook has mounted. */
int inside_is_mounted(const char *resolved);

/* Whether above `path` the image has no directory but, say, a link: hooks have made a directory in its
   place, and nothing of the image is seen there. */
int inside_is_cut(const char *path);

/* Open what `path`, an absolute one, is in the tree that is open on `root`, as if it were the root;
   -1 and errno.  Where the kernel cannot do that, nothing on the way may be a link. */
int inside_open(int root, const char *path);

/* Whether the image has a directory with something in it at `resolved`. */
int inside_is_used(const char *resolved);

#endif
