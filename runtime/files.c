#include "files.h"

#include "fail.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void path_format(char path[PATH_MAX], const char *format, ...)
{
    va_list values;
    int length;

    va_start(values, format);
    length = vsnprintf(path, PATH_MAX, format, values);
    va_end(values);
    if (length < 0 || length >= PATH_MAX)
        fail(ENAMETOOLONG, NULL, "cannot use '%.64s...'", path);
}

int path_within(const char *path, const char *directory)
{
    size_t length = strlen(directory);

    if (strcmp(directory, "/") == 0)
        return 1;
    return strncmp(path, directory, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

char *path_join(const char *directory, const char *rest)
{
    size_t size = strlen(directory) + strlen(rest) + 2;
    char *path = must_allocate(1, size);

    rest += rest[0] == '/';
    snprintf(path, size, "%s%s%s", directory, rest[0] != '\0' ? "/" : "", rest);
    return path;
}

char *bytes_of(int fd, size_t *length)
{
    char *text = malloc(TEXT_MAX + 1);
    ssize_t got = 1;

    if (text == NULL)
        return NULL;
    *length = 0;
    while (got > 0 && *length < TEXT_MAX) {
        got = read(fd, text + *length, TEXT_MAX - *length);
        if (got < 0 && errno == EINTR)
            got = 1;
        else if (got > 0)
            *length += (size_t)got;
    }
    if (got < 0 || *length == TEXT_MAX) {
        if (got >= 0)
            errno = EFBIG;
        free(text);
        return NULL;
    }
    text[*length] = '\0';
    return text;
}

char *text_read(const char *path)
{
    size_t length;

    return bytes_read(path, &length);
}

/* Read to the end, which is expected after `expected` bytes. */
static char *read_most(int fd, size_t expected, size_t most, size_t *length)
{
    size_t room = expected + 1;
    char *text = malloc(room + 1), *larger;

    *length = 0;
    while (text != NULL) {
        ssize_t got = read(fd, text + *length, room - *length);

        if (got == 0) {
            text[*length] = '\0';
            return text;
        }
        if (got > 0)
            *length += (size_t)got;
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 || *length > most) {
            errno = got < 0 ? errno : EFBIG;
            break;
        }
        if (*length == room) {
            room *= 2;
            larger = realloc(text, room + 1);
            if (larger == NULL)
                break;
            text = larger;
        }
    }
    free(text);
    return NULL;
}

char *bytes_read_most(const char *path, size_t most, size_t *length)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat status;
    char *text = NULL;
    int error;

    if (fd < 0)
        return NULL;
    if (fstat(fd, &status) == 0) {
        errno = S_ISREG(status.st_mode) ? EFBIG : EINVAL;
        if (S_ISREG(status.st_mode) && (uint64_t)status.st_size <= most)
            text = read_most(fd, (size_t)status.st_size, most, length);
    }
    error = errno;
    close(fd);
    errno = error;
    return text;
}

char *bytes_read(const char *path, size_t *length)
{
    return bytes_read_most(path, TEXT_MAX - 1, length);
}

void bytes_write(const char *path, const char *text, size_t length)
{
    size_t done = 0;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);

    MUST(fd, "cannot create '%s'", path);
    while (done < length) {
        ssize_t put = write(fd, text + done, length - done);

        if (put < 0 && errno == EINTR)
            continue;
        MUST(put, "cannot write '%s'", path);
        done += (size_t)put;
    }
    close(fd);
}

void *must_allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);

    if (memory == NULL)
        fail(ENOMEM, NULL, "cannot go on");
    return memory;
}

char *must_copy(const char *text)
{
    char *copy = strdup(text);

    if (copy == NULL)
        fail(ENOMEM, NULL, "cannot go on");
    return copy;
}

void *must_grow(void *list, size_t count, size_t *room, size_t size)
{
    if (count < *room)
        return list;
    *room = *room == 0 ? 16 : 2 * *room;
    list = reallocarray(list, *room, size);
    if (list == NULL)
        fail(ENOMEM, NULL, "cannot go on");
    return list;
}

uint64_t bytes_hash(const char *bytes, size_t length)
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (size_t at = 0; at < length; at++)
        hash = (hash ^ (unsigned char)bytes[at]) * 0x100000001b3u;
    return hash;
}
