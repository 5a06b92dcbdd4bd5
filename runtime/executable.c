#include "executable.h"

#include "fail.h"
#include "files.h"

#include <elf.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

/* The kernel looks for an interpreter in so many bytes (BINPRM_BUF_SIZE), and follows interpreters
   of interpreters so far. */
enum { HEAD = 256, DEEPEST = 5, PROGRAM_HEADERS = 64 };

struct head {
    char bytes[HEAD + 1];
    size_t length;
};

/* The begin of a file; its length is 0 if it cannot be read. */
static void read_head(const char *path, struct head *head)
{
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    ssize_t length = file >= 0 ? pread(file, head->bytes, HEAD, 0) : 0;

    if (file >= 0)
        close(file);
    head->length = length > 0 ? (size_t)length : 0;
    head->bytes[head->length] = '\0';
}

static int is_elf(const struct head *head)
{
    return head->length >= SELFMAG && memcmp(head->bytes, ELFMAG, SELFMAG) == 0;
}

int executable_is_text(const char *path)
{
    struct head head;

    read_head(path, &head);
    /* A NUL in the first line: so shells tell a program from a script. */
    return !is_elf(&head) &&
           (strlen(head.bytes) == head.length || head.bytes[strcspn(head.bytes, "\n")] == '\n');
}

static const struct {
    unsigned number;
    const char *name, *swapped; /* as uname(2) says them */
} machines[] = {
    {EM_X86_64, "x86_64", NULL},   {EM_AARCH64, "aarch64", "aarch64_be"},
    {EM_386, "i386", NULL},        {EM_ARM, "arm", "armeb"},
    {EM_PPC64, "ppc64le", "ppc64"}, {EM_PPC, "ppcle", "ppc"},
    {EM_S390, NULL, "s390x"},      {243, "riscv64", NULL},
    {258, "loongarch64", NULL},    {EM_MIPS, "mipsel", "mips"},
};

/* What machine an ELF file is made for. */
static const char *machine_of(const struct head *head)
{
    const unsigned char *at = (const unsigned char *)head->bytes + offsetof(Elf64_Ehdr, e_machine);
    int is_big = head->bytes[EI_DATA] == ELFDATA2MSB;
    unsigned number = is_big ? at[0] << 8u | at[1] : at[1] << 8u | at[0];

    for (size_t each = 0; each < sizeof machines / sizeof machines[0]; each++) {
        const char *name = is_big ? machines[each].swapped : machines[each].name;

        if (machines[each].number == number && name != NULL)
            return name;
    }
    return hint("the machine %u of ELF", number);
}

static const char *explain_machine(const char *path, const struct head *head)
{
    struct utsname node;
    const char *machine;

    if (head->length < sizeof(Elf32_Ehdr) || uname(&node) < 0)
        return hint("'%s' is cut off: it is no whole program", path);
    machine = machine_of(head);
    if (strcmp(machine, node.machine) != 0)
        return hint("'%s' is made for %s, and this node is %s", path, machine, node.machine);
    return hint("'%s' is damaged, or not made for Linux", path);
}

/* Where in the file a segment of a program is, and of which type. */
struct segment {
    uint64_t type, place, size;
};

static int read_at(int file, void *bytes, size_t size, uint64_t place)
{
    return place <= INT64_MAX && pread(file, bytes, size, (off_t)place) == (ssize_t)size;
}

static int read_segment_32(int file, const struct head *head, unsigned at, struct segment *segment)
{
    Elf32_Ehdr header;
    Elf32_Phdr read;

    memcpy(&header, head->bytes, sizeof header);
    if (at >= header.e_phnum ||
        !read_at(file, &read, sizeof read, (uint64_t)header.e_phoff + at * sizeof read))
        return 0;
    *segment = (struct segment){read.p_type, read.p_offset, read.p_filesz};
    return 1;
}

static int read_segment_64(int file, const struct head *head, unsigned at, struct segment *segment)
{
    Elf64_Ehdr header;
    Elf64_Phdr read;

    memcpy(&header, head->bytes, sizeof header);
    if (at >= header.e_phnum ||
        !read_at(file, &read, sizeof read, header.e_phoff + at * sizeof read))
        return 0;
    *segment = (struct segment){read.p_type, read.p_offset, read.p_filesz};
    return 1;
}

/* The loader that a program of this node's byte order names, in `loader`; 0: it names none. */
static int read_loader(const char *path, const struct head *head, char loader[PATH_MAX])
{
    int is_32 = head->bytes[EI_CLASS] == ELFCLASS32, is_found = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    struct segment segment;

    if (file < 0)
        return 0;
    memset(loader, 0, PATH_MAX);
    for (unsigned at = 0; at < PROGRAM_HEADERS && !is_found; at++)
        is_found = (is_32 ? read_segment_32 : read_segment_64)(file, head, at, &segment) &&
                   segment.type == PT_INTERP && segment.size > 0 && segment.size < PATH_MAX &&
                   read_at(file, loader, segment.size, segment.place);
    close(file);
    return is_found;
}

static const char *explain_loader(const char *path, const char *loader)
{
    const char *library = strstr(loader, "ld-musl") != NULL    ? "musl's"
                          : strstr(loader, "ld-linux") != NULL ? "glibc's"
                                                               : "a C library's";

    return hint("'%s' needs %s loader '%s', which is not in the container: take a program that is "
                "made for this image, or a static one",
                path, library, loader);
}

/* Take the interpreter out of a first line, `#!INTERPRETER [ARGUMENT]`; NULL: there is none. */
static char *find_interpreter(struct head *head)
{
    char *name = head->bytes + strlen("#!");

    if (strncmp(head->bytes, "#!", strlen("#!")) != 0)
        return NULL;
    name += strspn(name, " \t");
    name[strcspn(name, " \t\n")] = '\0';
    return name[0] != '\0' ? name : NULL;
}

static const char *explain_interpreter(const char *path, char *name)
{
    size_t length = strlen(name);

    if (name[length - 1] == '\r') {
        name[length - 1] = '\0';
        return hint("the lines of '%s' end with CR LF, as on Windows, so that its interpreter is "
                    "'%s' and a CR: write them again with LF alone (dos2unix)",
                    path, name);
    }
    return hint("the first line of '%s' names the interpreter '%s', which is not in the "
                "container%s",
                path, name, name[0] == '/' ? "" : ": write its whole path");
}

static const char *explain(const char *path, int error, int depth);

/* What the file that the kernel starts in the place of `path` lacks. */
static const char *explain_start(const char *path, int error, int depth)
{
    struct head head;
    char *name, loader[PATH_MAX];
    const char *inner;

    read_head(path, &head);
    name = find_interpreter(&head);
    if (name != NULL && access(name, F_OK) < 0 && errno == ENOENT)
        return explain_interpreter(path, name);
    if (name != NULL) {
        inner = depth > 0 ? explain(name, error, depth - 1) : NULL;
        return inner != NULL ? hint("%s; it is the interpreter of '%s'", inner, path) : NULL;
    }
    if (!is_elf(&head))
        return NULL;
    if (error == ENOEXEC)
        return explain_machine(path, &head);
    if (head.length < sizeof(Elf64_Ehdr) || !read_loader(path, &head, loader))
        return NULL;
    if (access(loader, F_OK) < 0)
        return explain_loader(path, loader);
    return depth > 0 ? explain(loader, error, 0) : NULL;
}

/* Why `path`, which is there, may not be executed. */
static const char *explain_denial(const char *path, const struct stat *status)
{
    struct statvfs filesystem;

    if (S_ISDIR(status->st_mode))
        return hint("'%s' is a directory", path);
    if (!S_ISREG(status->st_mode))
        return hint("'%s' is not a regular file", path);
    if ((status->st_mode & 0111) == 0)
        return hint("'%s' is not executable (mode %04o): chmod +x", path,
                    status->st_mode & 07777u);
    if (statvfs(path, &filesystem) == 0 && filesystem.f_flag & ST_NOEXEC)
        return hint("'%s' lies on a filesystem that is mounted noexec", path);
    if (access(path, X_OK) < 0)
        return hint("its owner lets others execute '%s', but not you (mode %04o)", path,
                    status->st_mode & 07777u);
    return NULL;
}

/* Why there is nothing at `path`. */
static const char *explain_way(const char *path)
{
    char target[PATH_MAX];
    ssize_t length;

    if (errno == EACCES)
        return hint("you may not enter a directory on the way to '%s'", path);
    if (errno == ENOTDIR)
        return hint("on the way to '%s' is a file, where a directory must be", path);
    length = readlink(path, target, sizeof target - 1);
    if (length <= 0)
        return NULL;
    target[length] = '\0';
    return hint("'%s' is a link to '%s', which is not in the container", path, target);
}

static const char *explain_text(const char *path)
{
    if (!executable_is_text(path))
        return hint("'%s' is not a program of Linux", path);
    return hint("'%s' has no first line like '#!/bin/sh', and the container has no /bin/sh", path);
}

static const char *explain(const char *path, int error, int depth)
{
    const char *reason = NULL;
    struct stat status;

    if (stat(path, &status) < 0)
        return explain_way(path);
    if (error == EACCES)
        reason = explain_denial(path, &status);
    if (reason == NULL && S_ISREG(status.st_mode))
        reason = explain_start(path, error, depth);
    if (reason == NULL && error == ENOEXEC && S_ISREG(status.st_mode))
        reason = explain_text(path);
    return reason;
}

const char *executable_explain(const char *path, int error)
{
    if (error == E2BIG)
        return "arguments and environment are more than this node takes: ulimit -s";
    if (error == ETXTBSY)
        return hint("'%s' is open for writing", path);
    return explain(path, error, DEEPEST);
}
