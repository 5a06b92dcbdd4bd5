#include "node.h"

#include "fail.h"
#include "files.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The first is for root to make, the others are where everybody may. */
static const struct {
    const char *start;
    int is_made;
} places[] = {
    {"/run/shifter_lite/", 0},
    {"/dev/shm/shifter_lite.", 1},
    {"/tmp/shifter_lite.", 1},
};

/* Of the first user namespace (linux/proc_ns.h): in any other one uids are others' than they seem. */
static const ino_t initial_namespace = 0xEFFFFFFD;

/* Anybody may have made something of that name: it must be ours, and nobody else's to enter.  Where
   everybody may make things, it must not be a filesystem of its own either: what one says of itself
   that somebody has mounted there with FUSE is what he likes. */
static int open_own(const char *path, int is_for_all)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat status, above;

    if (fd >= 0 && fstat(fd, &status) == 0 && status.st_uid == geteuid() &&
        (status.st_mode & 07777) == 0700 &&
        (!is_for_all || (fstatat(fd, "..", &above, 0) == 0 && above.st_dev == status.st_dev)))
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

/* What the caller's directory is called, wherever it is. */
static void put_name(char name[NAME_MAX + 1])
{
    struct stat status;

    if (stat("/proc/self/ns/user", &status) == 0 && status.st_ino != initial_namespace)
        snprintf(name, NAME_MAX + 1, "%u.%ju", geteuid(), (uintmax_t)status.st_ino);
    else
        snprintf(name, NAME_MAX + 1, "%u", geteuid());
}

void node_open(struct node *node)
{
    char name[NAME_MAX + 1];
    int taken = 0;

    put_name(name);
    for (size_t at = 0; at < sizeof places / sizeof places[0]; at++) {
        path_format(node->path, "%s%s", places[at].start, name);
        node->directory = open_own(node->path, places[at].is_made);
        if (node->directory < 0 && places[at].is_made) {
            taken |= mkdir(node->path, 0700) < 0 && errno == EEXIST;
            node->directory = open_own(node->path, places[at].is_made);
        }
        if (node->directory >= 0)
            return;
    }
    if (taken)
        warn("'%s' is not yours: this process shares no container", node->path);
}

void node_file_name(char name[NODE_FILE_NAME], char kind, const char *key, size_t length)
{
    snprintf(name, NODE_FILE_NAME, "%c.%016" PRIx64, kind, bytes_hash(key, length));
}

DIR *node_list(const struct node *node)
{
    int fd = openat(node->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 ? NULL : fdopendir(fd);
}

void node_close(const struct node *node)
{
    DIR *directory = node_list(node);
    struct dirent *entry;
    int containers = 0;

    if (directory == NULL)
        return;
    while ((entry = readdir(directory)) != NULL)
        containers += strncmp(entry->d_name, "c.", 2) == 0;
    rewinddir(directory);
    while (containers == 0 && (entry = readdir(directory)) != NULL)
        if (strncmp(entry->d_name, "n.", 2) == 0)
            unlinkat(node->directory, entry->d_name, 0);
    closedir(directory);
    if (containers == 0)
        rmdir(node->path);
}
