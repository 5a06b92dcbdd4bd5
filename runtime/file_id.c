#include "file_id.h"

#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum {
    EMPTY_PATH = 0x1000,
    DONT_SYNC = 0x4000,
    SIZE_WANTED = 0x200,
    INODE_WANTED = 0x100,
    CTIME_WANTED = 0x80,
    MOUNT_WANTED = 0x1000,
    HANDLE_MOST = 128,
};

/* struct statx of linux/stat.h, which older headers lack. */
struct statx_time {
    int64_t seconds;
    uint32_t nanoseconds;
    int32_t reserved;
};

struct statx_answer {
    uint32_t mask, block_size;
    uint64_t attributes;
    uint32_t links, uid, gid;
    uint16_t mode, spare0;
    uint64_t inode, size, blocks, attributes_mask;
    struct statx_time accessed, born, changed, modified;
    uint32_t special_major, special_minor, major, minor;
    uint64_t mount;
    uint64_t spare[13];
};

/* A directory that is made anew may get the number of the old one.  Its handle has a generation, too
   (name_to_handle_at(2)). */
static uint64_t handle_of(int directory, const char *path)
{
    _Alignas(struct file_handle) char room[sizeof(struct file_handle) + HANDLE_MOST] = {0};
    struct file_handle *handle = (void *)room;
    int mount;

    handle->handle_bytes = HANDLE_MOST;
    if (name_to_handle_at(directory, path, handle, &mount,
                          AT_SYMLINK_FOLLOW | (path[0] == '\0' ? EMPTY_PATH : 0)) < 0)
        return 0;
    return bytes_hash(room, sizeof *handle + handle->handle_bytes);
}

/* What identifies a file never changes, so a shared filesystem need not be asked for it. */
static int look(struct file_id *id, int directory, const char *path)
{
    struct statx_answer answer;

    if (syscall(SYS_statx, directory, path, DONT_SYNC | (path[0] == '\0' ? EMPTY_PATH : 0),
                INODE_WANTED | SIZE_WANTED | CTIME_WANTED | MOUNT_WANTED, &answer) < 0)
        return -1;
    id->device = makedev(answer.major, answer.minor);
    id->inode = answer.inode;
    id->mount = answer.mask & MOUNT_WANTED ? answer.mount : 0;
    id->changed = (uint64_t)answer.changed.seconds * 1000000000 + answer.changed.nanoseconds;
    id->size = answer.size;
    return 0;
}

/* A seccomp filter that is older than the call says ENOSYS or EPERM to it. */
static int look_without_statx(struct file_id *id, int directory, const char *path)
{
    struct stat status;

    if (fstatat(directory, path, &status, path[0] == '\0' ? EMPTY_PATH : 0) < 0)
        return -1;
    id->device = status.st_dev;
    id->inode = status.st_ino;
    id->changed =
        (uint64_t)status.st_ctim.tv_sec * 1000000000 + (uint64_t)status.st_ctim.tv_nsec;
    id->size = (uint64_t)status.st_size;
    return 0;
}

void file_id_read(struct file_id *id, int directory, const char *path)
{
    int is_read;

    memset(id, 0, sizeof *id);
    is_read = look(id, directory, path) == 0 ||
              ((errno == ENOSYS || errno == EPERM) && look_without_statx(id, directory, path) == 0);
    if (!is_read)
        id->error = errno;
    /* Of a filesystem on a device of this node no number is given away while a container, or a
       process, holds its file. */
    else if (major(id->device) == 0)
        id->handle = handle_of(directory, path);
}

void file_id_read_free(struct file_id *id, int directory)
{
    file_id_read(id, directory, "");
    if (id->error == 0 && id->handle == 0)
        id->handle = handle_of(directory, "");
}

int file_id_is_same(const struct file_id *one, const struct file_id *other)
{
    return one->error == other->error && one->device == other->device &&
           one->inode == other->inode && one->handle == other->handle;
}

uint64_t file_id_hash(const struct file_id *id)
{
    const uint64_t parts[] = {id->device, id->inode, id->handle};

    return bytes_hash((const char *)parts, sizeof parts);
}

void file_id_write(FILE *key, const struct file_id *id, int with_content)
{
    fprintf(key, "%d %" PRIx64 ":%" PRIx64 ":%" PRIx64 ":%" PRIx64, id->error, id->device,
            id->inode, id->mount, id->handle);
    if (with_content)
        fprintf(key, "@%" PRIu64 "+%" PRIu64, id->changed, id->size);
    fputc(',', key);
}

void file_id_write_all(FILE *key, const char *path)
{
    DIR *directory = opendir(path);
    struct dirent *entry;
    uint64_t sum = 0;

    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        struct {
            uint64_t name;
            struct file_id id;
        } file;

        if (entry->d_name[0] == '.')
            continue;
        memset(&file, 0, sizeof file);
        file.name = bytes_hash(entry->d_name, strlen(entry->d_name));
        file_id_read(&file.id, dirfd(directory), entry->d_name);
        sum += bytes_hash((const char *)&file, sizeof file);
    }
    if (directory != NULL)
        closedir(directory);
    fprintf(key, "%" PRIx64 ",", sum);
}
