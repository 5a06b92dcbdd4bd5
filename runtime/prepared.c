#include "prepared.h"

#include "batch.h"
#include "files.h"

#include <linux/magic.h>
#include <string.h>
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

int prepared_find(char path[PATH_MAX], const char *id)
{
    const char *job = batch_job();

    if (job == NULL)
        job = "-";
    if (!prepared_is_job(job))
        return 0;
    path_format(path, PREPARED_DIR "/%u/%s/%s", geteuid(), job, id);
    return prepared_is_mounted(path);
}
