#include "prepared.h"

#include "batch.h"
#include "files.h"

#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { JOB_LONGEST = 128 };

int prepared_is_job(const char *job)
{
    size_t length = strlen(job);

    return length > 0 && length <= JOB_LONGEST && job[0] != '.' &&
           strspn(job, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-[]") == length;
}

int prepared_is_mounted(const char *path)
{
    struct statfs status;

    return statfs(path, &status) == 0 && status.f_type == SQUASHFS_MAGIC;
}

int prepared_is_cache(const char *path)
{
    char above[PATH_MAX + 3];
    struct stat status, around;

    snprintf(above, sizeof above, "%s/..", path);
    return stat(path, &status) == 0 && stat(above, &around) == 0 &&
           status.st_dev != around.st_dev;
}

/* The place of `name` for the caller's job; 0 if there can be none. */
static int find(char path[PATH_MAX], uid_t uid, const char *name)
{
    const char *job = batch_job();

    if (job == NULL)
        job = "-";
    if (!prepared_is_job(job))
        return 0;
    path_format(path, PREPARED_DIR "/%u/%s/%s", uid, job, name);
    return 1;
}

int prepared_find(char path[PATH_MAX], uid_t uid, const char *id)
{
    return find(path, uid, id) && prepared_is_mounted(path);
}

void prepared_cache_name(char name[PREPARED_CACHE_NAME], const char *place, uint64_t size)
{
    char text[PATH_MAX + 32];

    snprintf(text, sizeof text, "%s\n%" PRIu64, place, size);
    snprintf(name, PREPARED_CACHE_NAME, "cache.%016" PRIx64, bytes_hash(text, strlen(text)));
}

int prepared_find_cache(char path[PATH_MAX], uid_t uid, const char *place, uint64_t size)
{
    char name[PREPARED_CACHE_NAME];

    prepared_cache_name(name, place, size);
    return find(path, uid, name) && prepared_is_cache(path);
}
