/* What _FORTIFY_SOURCE does with glibc, for a libc that has nothing of the kind: what would be
   written beyond an object whose size the compiler knows ends the program.  The Makefile includes
   it everywhere. */
#ifndef FORTIFY_H
#define FORTIFY_H

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#if !defined(__GLIBC__) && defined(__OPTIMIZE__) && __GNUC__ >= 12 && !defined(__clang__)

/* Instead of the declared function, wherever it is called; its code is libc's. */
#define FORTIFIED extern inline __attribute__((always_inline, gnu_inline, artificial))
#define LIBC(function) __asm__(#function)

FORTIFIED void fortify(const void *object, size_t size, size_t written)
{
    (void)object;
    if (written > size)
        __builtin_trap();
}

/* A size that is not known is the greatest of all.  Text must not leave its member of a structure;
   bytes may be those of the whole structure. */
#define FORTIFY_BYTES(to, written) fortify(to, __builtin_dynamic_object_size(to, 0), written)
#define FORTIFY_TEXT(to, written) fortify(to, __builtin_dynamic_object_size(to, 1), written)

FORTIFIED void *memcpy(void *restrict to, const void *restrict from, size_t length)
{
    FORTIFY_BYTES(to, length);
    return __builtin_memcpy(to, from, length);
}

FORTIFIED void *memmove(void *to, const void *from, size_t length)
{
    FORTIFY_BYTES(to, length);
    return __builtin_memmove(to, from, length);
}

FORTIFIED void *memset(void *to, int byte, size_t length)
{
    FORTIFY_BYTES(to, length);
    return __builtin_memset(to, byte, length);
}

FORTIFIED char *strcpy(char *restrict to, const char *restrict from)
{
    FORTIFY_TEXT(to, __builtin_strlen(from) + 1);
    return __builtin_strcpy(to, from);
}

FORTIFIED char *stpcpy(char *restrict to, const char *restrict from)
{
    FORTIFY_TEXT(to, __builtin_strlen(from) + 1);
    return __builtin_stpcpy(to, from);
}

FORTIFIED int vsnprintf(char *restrict to, size_t size, const char *restrict format, va_list values)
{
    FORTIFY_TEXT(to, size);
    return __builtin_vsnprintf(to, size, format, values);
}

FORTIFIED int snprintf(char *restrict to, size_t size, const char *restrict format, ...)
{
    FORTIFY_TEXT(to, size);
    return __builtin_snprintf(to, size, format, __builtin_va_arg_pack());
}

char *libc_fgets(char *, int, FILE *) LIBC(fgets);
FORTIFIED char *fgets(char *restrict to, int size, FILE *restrict file)
{
    FORTIFY_TEXT(to, (size_t)size);
    return libc_fgets(to, size, file);
}

ssize_t libc_read(int, void *, size_t) LIBC(read);
FORTIFIED ssize_t read(int fd, void *to, size_t size)
{
    FORTIFY_BYTES(to, size);
    return libc_read(fd, to, size);
}

ssize_t libc_pread(int, void *, size_t, off_t) LIBC(pread);
FORTIFIED ssize_t pread(int fd, void *to, size_t size, off_t offset)
{
    FORTIFY_BYTES(to, size);
    return libc_pread(fd, to, size, offset);
}

ssize_t libc_readlink(const char *, char *, size_t) LIBC(readlink);
FORTIFIED ssize_t readlink(const char *restrict path, char *restrict to, size_t size)
{
    FORTIFY_TEXT(to, size);
    return libc_readlink(path, to, size);
}

char *libc_getcwd(char *, size_t) LIBC(getcwd);
FORTIFIED char *getcwd(char *to, size_t size)
{
    FORTIFY_TEXT(to, size);
    return libc_getcwd(to, size);
}

int libc_getgroups(int, gid_t *) LIBC(getgroups);
FORTIFIED int getgroups(int size, gid_t *to)
{
    FORTIFY_BYTES(to, (size_t)size * sizeof *to);
    return libc_getgroups(size, to);
}

int libc_poll(struct pollfd *, nfds_t, int) LIBC(poll);
FORTIFIED int poll(struct pollfd *to, nfds_t count, int milliseconds)
{
    FORTIFY_BYTES(to, count * sizeof *to);
    return libc_poll(to, count, milliseconds);
}

#endif
#endif
