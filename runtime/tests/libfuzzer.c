/* Entries for libFuzzer, one a parser: compiled with TARGET as one of the functions below.  Nothing is read out of bounds (ASan, UBSan watch), and what is taken keeps the rules.
   `make libfuzzer` builds them all. */
#include "../fail.h"
#include "../identity.h"
#include "../index.h"
#include "../memo.h"
#include "../record.h"
#include "../reference.h"
#include "../description.h"
#include "../serve/ahead.h"
#include "../state.h"
#include "cdb_make.h"
#include "parsers.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* What ends the launcher ends one execution. */
static jmp_buf end;

static _Noreturn void left(int status)
{
    longjmp(end, status + 1);
}

const char *fail_program = "shifter";

_Noreturn void fail(int error, const char *advice, const char *fact, ...)
{
    char text[4096];
    va_list values;

    (void)error;
    (void)advice;
    va_start(values, fact);
    vsnprintf(text, sizeof text, fact, values);
    va_end(values);
    left(1);
}

_Noreturn void fail_as(int status, int error, const char *advice, const char *fact, ...)
{
    fail(error, advice, "%d %s", status, fact);
}

void warn(const char *fact, ...)
{
    (void)fact;
}

const char *hint(const char *format, ...)
{
    return format;
}

/* What the launcher takes and never frees is freed after an execution, if it `collects` it
   (ld --wrap). */
static void *taken[4096];
static size_t taken_count;
static int collects;

static void *collect(void *memory)
{
    if (!collects)
        return memory;
    CHECK(taken_count < sizeof taken / sizeof taken[0]);
    return taken[taken_count++] = memory;
}

void *__real_must_allocate(size_t count, size_t size);
void *__wrap_must_allocate(size_t count, size_t size);
char *__real_must_copy(const char *text);
char *__wrap_must_copy(const char *text);

void *__wrap_must_allocate(size_t count, size_t size)
{
    return collect(__real_must_allocate(count, size));
}

char *__wrap_must_copy(const char *text)
{
    return collect(__real_must_copy(text));
}

static void release(void)
{
    while (taken_count > 0)
        free(taken[--taken_count]);
    collects = 0;
}

#define exit left
#include "../args.c"
#undef exit

/* ------------------------------------------------------------------------------- requests */

/* Arguments, each ended by a NUL. */
static void try_argv(char *text, size_t length)
{
    static struct job job;
    char *list[64];
    size_t count = 0;

    for (char *at = text; at < text + length && count < 63; at += strlen(at) + 1)
        list[count++] = at;
    list[count] = NULL;
    collects = 1;
    if (setjmp(end) == 0) {
        args_read(&job, list);
        CHECK(job.image != NULL || job.action == CHECK_CONFIG || job.action == DOCTOR);
        CHECK(job.workdir == NULL || job.workdir[0] == '/');
        CHECK(job.writable <= 100);
    }
    release_words(&job.volumes);
    release_words(&job.env);
    release_words(&job.env_files);
    release();
}

static void try_name(char *text, size_t length)
{
    char key[REFERENCE_MAX], again[REFERENCE_MAX];

    (void)length;
    if (reference_normalise(text, key) == 0)
        CHECK(reference_normalise(key, again) == 0 && strcmp(key, again) == 0);
}

/* ---------------------------------------------------------------------- what the store says */

static int file_of(const char *bytes, size_t length)
{
    static int file = -1;

    if (file < 0)
        CHECK((file = memfd_create("index", MFD_CLOEXEC)) >= 0);
    CHECK(ftruncate(file, 0) == 0 && pwrite(file, bytes, length, 0) == (ssize_t)length);
    return file;
}

static void one_record(const char *key, const char *bytes, size_t length)
{
    struct record record;
    const char *why = NULL;

    memset(&record, 0, sizeof record);
    if (record_read(&record, key, bytes, length, &why) == RECORD_READ) {
        CHECK(strlen(record.id) == ID_LENGTH);
    } else {
        CHECK(why != NULL);
    }
    free(record.env.list);
    free(record.entrypoint.list);
    free(record.cmd.list);
}

/* A whole file. */
static void try_index(char *text, size_t length)
{
    struct identity who = {.uid = 1000, .gid = 5};
    int file = file_of(text, length);
    struct value value = {NULL, 0, ""};
    const char *why = "";

    if (index_find(file, "key", &value) == INDEX_FOUND)
        one_record("key", value.bytes, value.length);
    free(value.bytes);
    identity_lookup(&who, file, &why);
    free(who.known);
}

/* A record's fields, with newlines for NULs, under their right checksum. */
static void try_record(char *text, size_t length)
{
    char *sealed = malloc(length + 14);

    CHECK(sealed != NULL);
    for (size_t at = 0; at < length; at++)
        sealed[at] = (char)(text[at] == '\n' ? '\0' : text[at]);
    snprintf(sealed + length, 14, "sum=%08x",
             (unsigned)cdb_crc(sealed, length, cdb_crc("", 1, cdb_crc("key", 3, 0))));
    one_record("key", sealed, length + 13);
    free(sealed);
}

/* --------------------------------------------------------------------- what an image says */

/* What follows a squashfs of 4096 bytes that says nothing: a text, and a record's fields, with the
   right numbers before and the right checksum behind them unless the first byte is 'x'. */
static void try_description(char *text, size_t length)
{
    static char image[4096 + 64 + 4096 + 16] = "hsqs";
    struct description parsed;
    size_t size = 4096, start;

    if (length == 0)
        return;
    image[41] = 16;
    if (*text != 'x')
        size += (size_t)sprintf(image + size, "shifter-lite image 1 3 %zu\nabc", length - 1 + 13);
    start = size;
    for (size_t at = 1; at < length; at++)
        image[size++] = (char)(text[at] == '\n' ? '\0' : text[at]);
    if (*text != 'x')
        size += (size_t)sprintf(image + size, "sum=%08x", (unsigned)cdb_crc(image + start, length - 1,
                                cdb_crc("", 1, cdb_crc("image", 5, 0)))) + 1;
    collects = 1;
    description_read(&parsed, file_of(image, size));
    if (parsed.libs != NULL)
        for (size_t at = 0; parsed.libs[at] != NULL; at++)
            CHECK(strlen(parsed.libs[at]) <= length);
    release();
}

struct visit {
    struct squashfs *fs;
    const struct inode *directory;
    int budget, depth;
};

static void visit(struct squashfs *fs, uint64_t reference, int *budget, int depth);

static int visit_entry(void *closure, const struct entry *entry, uint64_t next)
{
    struct visit *at = closure;
    uint64_t found;

    (void)next;
    if (squashfs_lookup(at->fs, at->directory, entry->name, entry->length, &found) == 0)
        visit(at->fs, found, &at->budget, at->depth);
    return at->budget <= 0;
}

static void visit(struct squashfs *fs, uint64_t reference, int *budget, int depth)
{
    static char bytes[70000];
    struct inode inode;
    struct visit below = {fs, &inode, *budget, depth + 1};
    uint64_t found;

    if (--*budget < 0 || depth > 5 || squashfs_inode(fs, reference, &inode) < 0)
        return;
    squashfs_readlink(fs, &inode, bytes, sizeof bytes);
    if (S_ISREG(inode.mode)) {
        squashfs_read(fs, &inode, bytes, sizeof bytes, inode.size / 2);
        squashfs_seek(fs, &inode, inode.size / 3, 0, &found);
        squashfs_seek(fs, &inode, inode.size / 3, 1, &found);
    }
    if (S_ISDIR(inode.mode)) {
        squashfs_list(fs, &inode, 0, visit_entry, &below);
        squashfs_list(fs, &inode, inode.size / 8, visit_entry, &below);
    }
    *budget = below.budget;
}

static void try_squashfs(char *text, size_t length)
{
    struct squashfs fs;
    int budget = 40, file = file_of(text, length);

    if (squashfs_begin(&fs, file) == 0) {
        if (ahead_plan(&fs) == 0)
            blocks_ahead_run(&fs.data);
        visit(&fs, fs.root, &budget, 0);
    }
    squashfs_end(&fs);
}

/* ------------------------------------------------------------------- what the node says */

/* /etc/passwd, a NUL, /etc/group. */
static void try_accounts(char *text, size_t length)
{
    gid_t groups[] = {0, 5, 77};
    struct identity who = {.uid = 1000, .gid = 1000, .groups = groups, .group_count = 3,
                           .shows_passwd = 1, .shows_group = 1};
    size_t half = strlen(text);
    char *passwd = strdup(text), *group = strdup(half < length ? text + half + 1 : "");

    identity_from(&who, passwd, group, NULL, "/");
    free(identity_passwd(&who, passwd));
    free(identity_group(&who, group));
    free(passwd);
    free(group);
}

static void try_container(char *text, size_t length)
{
    struct state parsed;

    state_parse(&parsed, text, length);
    CHECK(parsed.lines >= text && parsed.lines <= text + length);
    CHECK(!parsed.ready || parsed.key + parsed.key_length <= text + length);
}

static void try_memo(char *text, size_t length)
{
    struct memo parsed;

    if (!memo_parse(text, length, "/store", "name", &parsed))
        return;
    CHECK(parsed.value.bytes + parsed.value.length == text + length);
    one_record("name", parsed.value.bytes, parsed.value.length);
}

/* ------------------------------------------------------------------------------------- */

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t length);

/* An exact copy, so that ASan sees every byte too many. */
int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t length)
{
    static void (*const targets[])(char *, size_t) = {
        try_argv,   try_name,  try_volume,   try_env_file,  try_config, try_index,
        try_record, try_accounts, try_container, try_memo, try_description, try_squashfs};
    char *text = malloc(length + 1);

    (void)targets;
    CHECK(text != NULL);
    memcpy(text, bytes, length);
    text[length] = '\0';
    TARGET(text, length);
    free(text);
    return 0;
}
