/* What the reader answers to good, damaged and hostile indexes. */
#include "../index.h"
#include "../record.h"
#include "cdb_make.h"

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define FIELDS "id=" ID "\nsize=42\ndigest=sha256:" ID "\ntime=1\n"

static struct cdb_make cdb;

static void make(const char *key, const char *fields)
{
    char value[4096];

    snprintf(value, sizeof value, "%s", fields);
    memset(&cdb, 0, sizeof cdb);
    cdb_add(&cdb, key, value, cdb_seal(key, value));
    cdb_end(&cdb);
}

static enum index_answer find(const char *key, struct value *value)
{
    int fd = cdb_file(cdb.bytes, cdb.size);
    enum index_answer answer = index_find(fd, key, value);

    close(fd);
    return answer;
}

static enum record_answer read_back(const char *fields)
{
    struct value value;
    struct record record;
    enum record_answer answer;
    const char *why;

    make("k", fields);
    CHECK(find("k", &value) == INDEX_FOUND);
    answer = record_read(&record, "k", value.bytes, value.length, &why);
    free(value.bytes);
    free(record.env.list);
    return answer;
}

static void a_record_is_read(void)
{
    struct value value;
    struct record record;
    const char *why;

    make("k", "v=1\n" FIELDS "env=A=b=c\nenv=D=\nx=unknown\nworkdir=/w\ncmd=ls\n");
    CHECK(find("other", &value) == INDEX_ABSENT);
    CHECK(find("k", &value) == INDEX_FOUND);
    CHECK(record_read(&record, "k", value.bytes, value.length, &why) == RECORD_READ);
    CHECK(strcmp(record.id, ID) == 0 && record.size == 42);
    CHECK(strcmp(record.env.list[0], "A=b=c") == 0 && strcmp(record.env.list[1], "D=") == 0);
    CHECK(record.env.count == 2 && strcmp(record.workdir, "/w") == 0);
    free(record.env.list);
    /* The sum covers the key. */
    CHECK(record_read(&record, "K", value.bytes, value.length, &why) == RECORD_DAMAGED);
    free(value.bytes);
}

static void broken_rules_are_damage(void)
{
    const char *const broken[] = {
        "", "v=1\n", FIELDS, "v\n" FIELDS, "v=1\n" FIELDS "id=" ID "\n",
        "v=1\nid=" ID "\ndigest=sha256:" ID "\ntime=1\n",
        "v=1\nid=0123\nsize=42\ndigest=sha256:" ID "\ntime=1\n",
        "v=1\nid=" ID "\nsize=\ndigest=sha256:" ID "\ntime=1\n",
        "v=1\nid=" ID "\nsize=-1\ndigest=sha256:" ID "\ntime=1\n",
        "v=1\nid=" ID "\nsize=9999999999999999999\ndigest=sha256:" ID "\ntime=1\n",
        "v=1\nid=" ID "\nsize=42\ndigest=md5:" ID "\ntime=1\n",
        "v=1\nid=" ID "\nsize=42\ndigest=sha256:" ID "\ntime=x\n",
        "v=1\n" FIELDS "word\n", "v=1\n" FIELDS "unended",
    };

    CHECK(read_back("v=1\n" FIELDS) == RECORD_READ);
    for (size_t at = 0; at < sizeof broken / sizeof broken[0]; at++) {
        if (read_back(broken[at]) == RECORD_DAMAGED)
            continue;
        fprintf(stderr, "accepted: %s\n", broken[at]);
        exit(EXIT_FAILURE);
    }
    CHECK(read_back("v=2\n" FIELDS) == RECORD_NEWER);
    CHECK(read_back("v=10\n") == RECORD_NEWER);
}

static void every_truncation_is_damage(void)
{
    struct value value;
    size_t whole;

    make("k", "v=1\n" FIELDS);
    for (whole = cdb.size; cdb.size > 0;) {
        cdb.size--;
        CHECK(find("k", &value) == INDEX_DAMAGED);
        free(value.bytes);
    }
    cdb.size = whole;
}

static void a_full_table_ends(void)
{
    struct value value;
    uint32_t hash = cdb_hash("k");
    size_t table = 2048, slots = 4096;

    /* Every slot has the hash and points to a record of another key. */
    memset(&cdb, 0, sizeof cdb);
    cdb_put(cdb.bytes + 8 * (hash % 256), (uint32_t)table);
    cdb_put(cdb.bytes + 8 * (hash % 256) + 4, (uint32_t)slots);
    cdb.size = table + 8 * slots + 16;
    for (size_t at = 0; at < slots; at++) {
        cdb_put(cdb.bytes + table + 8 * at, hash);
        cdb_put(cdb.bytes + table + 8 * at + 4, (uint32_t)(cdb.size - 16));
    }
    cdb_put(cdb.bytes + cdb.size - 16, 1);
    memcpy(cdb.bytes + cdb.size - 8, "j", 1);
    CHECK(find("k", &value) == INDEX_ABSENT);
}

static void lengths_are_not_believed(void)
{
    struct value value;
    static const uint32_t lengths[] = {200, 1u << 20, (1u << 20) + 1, 1u << 31, UINT32_MAX};

    for (size_t at = 0; at < sizeof lengths / sizeof lengths[0]; at++) {
        make("k", "v=1\n" FIELDS);
        cdb_put(cdb.bytes + 2048 + 4, at == 0 ? 60000 : lengths[at]);
        CHECK(find("k", &value) == INDEX_DAMAGED);
        make("k", "v=1\n" FIELDS);
        cdb_put(cdb.bytes + 8 * (cdb_hash("k") % 256), lengths[at] == 200 ? 70000 : lengths[at]);
        CHECK(find("k", &value) == INDEX_DAMAGED);
        make("k", "v=1\n" FIELDS);
        cdb_put(cdb.bytes + 8 * (cdb_hash("k") % 256) + 4, lengths[at]);
        CHECK(find("k", &value) != INDEX_FOUND);
    }
}

int main(void)
{
    a_record_is_read();
    broken_rules_are_damage();
    every_truncation_is_damage();
    a_full_table_ends();
    lengths_are_not_believed();
    puts("index: all claims hold");
    return EXIT_SUCCESS;
}
