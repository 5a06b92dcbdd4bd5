/* Images that root has mounted on this node before a job began (setupRoot): the kernel reads them, so no
   server is needed.

       /run/shifter_lite/jobs/<uid>/<job>/<image id>

   <job> is what the batch system calls it, or `-`.  All of it is root's; only <uid> may enter. */
#ifndef SHIFTER_PREPARED_H
#define SHIFTER_PREPARED_H

#include <limits.h>
#include <sys/types.h>

#define PREPARED_DIR "/run/shifter_lite/jobs"

/* Whether `job` can be part of a path. */
int prepared_is_job(const char *job);

/* Where the image `id` is mounted for the caller's job; 0 if it is not. */
int prepared_find(char path[PATH_MAX], const char *id);

/* Whether a squashfs is mounted there. */
int prepared_is_mounted(const char *path);

#endif
