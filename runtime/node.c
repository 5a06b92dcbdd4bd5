#include "node.h"

#include "fail.h"
#include "files.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
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

/* Of the first user and PID namespaces (linux/proc_ns.h).  In any other one uids or pids are those of
   other users or processes than they seem, and a file of one names no process of the other. */
static const ino_t initial_user_namespace = 0xEFFFFFFD, initial_pid_namespace = 0xEFFFFFFC;

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

/* The inode of a namespace of ours, or 0 if it is the first one. */
static uintmax_t namespace_of(const char *path, ino_t initial)
{
    struct stat status;

    return stat(path, &status) == 0 && status.st_ino != initial ? status.st_ino : 0;
}

/* What the caller's directory is called, wherever it is. */
static void put_name(char name[NAME_MAX + 1])
{
    uintmax_t user = namespace_of("/proc/self/ns/user", initial_user_namespace);
    uintmax_t pid = namespace_of("/proc/self/ns/pid", initial_pid_namespace);
    int length = snprintf(name, NAME_MAX + 1, "%u", geteuid());

    if (user != 0)
        length += snprintf(name + length, NAME_MAX + 1 - (size_t)length, ".%ju", user);
    if (pid != 0)
        snprintf(name + length, NAME_MAX + 1 - (size_t)length, ".p%ju", pid);
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

static const struct node *left;
static pid_t owner; /* helpers are its children, and may fail, too */

static void close_left(void)
{
    if (left != NULL && getpid() == owner)
        node_close(left);
}

void node_close_at_exit(const struct node *node)
{
    if (node != NULL && left == NULL && atexit(close_left) != 0)
        fail(ENOMEM, NULL, "out of memory");
    left = node;
    owner = getpid();
}
