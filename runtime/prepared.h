/* What root has mounted on this node before a job began (setupRoot): images, which the kernel reads,
   so no server is needed, and caches, which are larger than memory.

       /run/shifter_lite/jobs/<uid>/<job>/<image id>
       /run/shifter_lite/jobs/<uid>/<job>/cache.<16 hex digits of its place and size>

   <job> is what the batch system calls it, or `-`.  All of it is root's; only <uid> may enter. */
#ifndef SHIFTER_PREPARED_H
#define SHIFTER_PREPARED_H

#include <limits.h>
#include <stdint.h>
#include <sys/types.h>

#define PREPARED_DIR "/run/shifter_lite/jobs"

/* Whether `job` can be part of a path. */
int prepared_is_job(const char *job);

/* Where the image `id` is mounted for the caller's job; 0 if it is not.  In a user namespace of ours
   the caller may have another number than `uid`, his own. */
int prepared_find(char path[PATH_MAX], uid_t uid, const char *id);

/* Whether a squashfs is mounted there. */
int prepared_is_mounted(const char *path);

/* What the cache of so many bytes that is seen at `place` in containers is called. */
enum { PREPARED_CACHE_NAME = 32 };
void prepared_cache_name(char name[PREPARED_CACHE_NAME], const char *place, uint64_t size);

/* Where the caller's job has it; 0 if it has not. */
int prepared_find_cache(char path[PATH_MAX], uid_t uid, const char *place, uint64_t size);

/* Whether a cache is mounted there. */
int prepared_is_cache(const char *path);

#endif
