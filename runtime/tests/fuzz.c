/* Mutate names and indexes at random: nothing is read out of bounds (ASan, UBSan watch), a key is
   its own key, and no mutated record is taken for a good one. */
#include "../identity.h"
#include "../index.h"
#include "../memo.h"
#include "../record.h"
#include "../reference.h"
#include "../state.h"
#include "cdb_make.h"

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define FIELDS "v=1\nid=" ID "\nsize=42\ndigest=sha256:" ID "\ntime=1\nenv=A=b\nworkdir=/w\n"

static const char *const names[] = {
    "debian", "docker:debian:12", "localhost:5000/a_b/c__d/e--f:T.1", "[2001:db8::1]:5000/x",
    "quay.io/a/b@sha256:" ID, "id:" ID, "index.docker.io/library/x:1@sha256:" ID, "REG.org/x",
};
static const char alphabet[] = "aZ09.:/@-_[]\x80 id";
static uint64_t state = 88172645463325252u;

static uint32_t random_below(size_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 11) % limit);
}

static void try_name(void)
{
    char text[512], key[REFERENCE_MAX], again[REFERENCE_MAX];
    size_t length;

    snprintf(text, sizeof text, "%s", names[random_below(sizeof names / sizeof names[0])]);
    for (uint32_t count = random_below(5); count > 0; count--) {
        length = strlen(text);
        switch (random_below(3)) {
        case 0:
            text[random_below(length + 1)] = alphabet[random_below(sizeof alphabet)];
            break;
        case 1:
            text[random_below(length + 1)] = '\0';
            break;
        default:
            if (length > 0 && length < 200)
                memmove(text + length, text + random_below(length), 1 + random_below(length) / 2);
        }
        text[length < 300 ? length + length / 2 + 1 : length] = '\0';
    }
    if (reference_normalise(text, key) == 0)
        CHECK(reference_normalise(key, again) == 0 && strcmp(key, again) == 0);
}

static void try_index(int fd, const struct cdb_make *good)
{
    static unsigned char bytes[CDB_SIZE];
    struct value value;
    struct record record;
    size_t size = good->size;
    const char *why;

    memcpy(bytes, good->bytes, size);
    /* Aim at the pairs and records that will be read: elsewhere nobody looks. */
    for (uint32_t count = 1 + random_below(4); count > 0; count--) {
        size_t at = random_below(3) == 0 ? (cdb_hash("key") % 256) * 8 + random_below(8)
                                         : 2048 + random_below(size - 2048);

        bytes[at] = (unsigned char)(random_below(2) ? random_below(256)
                                                    : bytes[at] ^ (1u << random_below(8)));
    }
    if (random_below(8) == 0)
        size = random_below(size);
    CHECK(pwrite(fd, bytes, size, 0) == (ssize_t)size && ftruncate(fd, (off_t)size) == 0);
    if (index_find(fd, "key", &value) == INDEX_FOUND) {
        if (record_read(&record, "key", value.bytes, value.length, &why) == RECORD_READ)
            CHECK(strcmp(record.id, ID) == 0 && record.size == 42);
        free(record.env.list);
    }
    free(value.bytes);
}

/* What an index says of a user, changed anywhere, sealed again: it is damaged, or keeps its line. */
static void try_snapshot(int fd)
{
    static const char key[] = "\0u1000", whole[] = "v=1\nname=ann\ngid=100\ngecos=A\n"
                                                  "home=/h\nshell=/s\ngroup=5=tty\n";
    static struct cdb_make made;
    struct identity who = {.uid = 1000, .gid = 5};
    char value[256];
    const char *why;

    memset(&made, 0, sizeof made);
    snprintf(value, sizeof value, "%s", whole);
    for (uint32_t count = random_below(4); count > 0; count--)
        value[4 + random_below(sizeof whole - 5)] = "=:\n\t,/-0a9\x01"[random_below(11)];
    cdb_add_bytes(&made, key, sizeof key - 1, value, cdb_seal_bytes(key, sizeof key - 1, value));
    cdb_end(&made);
    if (random_below(4) == 0)
        made.bytes[random_below(made.size)] ^= (unsigned char)(1u << random_below(8));
    CHECK(pwrite(fd, made.bytes, made.size, 0) == (ssize_t)made.size &&
          ftruncate(fd, (off_t)made.size) == 0);
    if (identity_lookup(&who, fd, &why) == INDEX_FOUND && who.passwd != NULL) {
        int colons = 0;

        for (const char *at = who.passwd; *at != '\0'; at++) {
            CHECK((unsigned char)*at >= ' ' && *at != 0x7f);
            colons += *at == ':';
        }
        CHECK(colons == 6);
    }
    free(who.known);
}

static void try_identity(void)
{
    char passwd[] = "root:x:0:0:r:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n+\nb:x:2:2:::\n";
    char group[] = "root:x:0:\nann:x:1000:a,b\nz:x:5:";
    gid_t groups[] = {0, 5, 77};
    struct identity who = {.uid = 1000, .gid = 1000, .groups = groups, .group_count = 3,
                           .shows_passwd = 1, .shows_group = 1};

    for (uint32_t count = 1 + random_below(6); count > 0; count--) {
        passwd[random_below(sizeof passwd - 1)] = ":\n0aZ+\0"[random_below(7)];
        group[random_below(sizeof group - 1)] = ":\n0aZ+\0"[random_below(7)];
    }
    identity_from(&who, passwd, group, NULL, "/");
    free(identity_passwd(&who, passwd));
    free(identity_group(&who, group));
}

/* The files that launches on a node leave each other. */
static void try_node(void)
{
    static const char state_file[] = "shifter container 1\nkey 5\na\nb\nc\nuser 4026531837\n"
                                     "mount 4026531840\nfounder 17\nready\n17\nkeeper 18 8 9 19\n";
    static const char memo_file[] = "shifter name 2\n/store\nname\n12 ab\nv=1";
    char text[256];
    struct state parsed;
    struct memo memo;
    size_t length = random_below(2) ? sizeof state_file - 1 : sizeof memo_file - 1;

    memcpy(text, length == sizeof memo_file - 1 ? memo_file : state_file, length + 1);
    for (uint32_t count = random_below(6); count > 0; count--)
        text[random_below(length)] = (char)(random_below(3) ? "0123456789 \nk"[random_below(13)]
                                                            : (int)random_below(256));
    length = random_below(4) ? length : random_below(length);
    text[length] = '\0';
    state_parse(&parsed, text, length);
    CHECK(parsed.lines >= text && parsed.lines <= text + length);
    CHECK(!parsed.ready || parsed.key + parsed.key_length <= text + length);
    if (memo_parse(text, length, "/store", "name", &memo))
        CHECK(memo.value.bytes + memo.value.length == text + length);
}

int main(int argc, char **argv)
{
    static struct cdb_make good;
    long count = argc > 1 ? atol(argv[1]) : 1000000;
    int fd = memfd_create("index", MFD_CLOEXEC), users = memfd_create("users", MFD_CLOEXEC);

    if (argc > 2)
        state ^= strtoull(argv[2], NULL, 10) * 0x9E3779B97F4A7C15u;
    for (char key[] = "keA"; key[2] <= 'y'; key[2]++) {
        char value[512] = FIELDS;

        cdb_add(&good, key, value, cdb_seal(key, value));
    }
    cdb_end(&good);
    for (long at = 0; at < count; at++) {
        try_name();
        try_index(fd, &good);
        try_node();
        if (at % 16 == 0) {
            try_identity();
            try_snapshot(users);
        }
    }
    printf("%ld mutations\n", count);
    return EXIT_SUCCESS;
}
