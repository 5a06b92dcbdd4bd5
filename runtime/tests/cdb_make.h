/* A writer of constant databases for the tests: what it makes lies in memory. */
#ifndef SHIFTER_CDB_MAKE_H
#define SHIFTER_CDB_MAKE_H

#include "check.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { CDB_SIZE = 1 << 16, CDB_KEYS = 64 };

struct cdb_make {
    unsigned char bytes[CDB_SIZE];
    size_t size;
    uint32_t hash[CDB_KEYS], position[CDB_KEYS];
    size_t count;
};

static inline void cdb_put(unsigned char *at, uint32_t number)
{
    for (int byte = 0; byte < 4; byte++)
        at[byte] = (unsigned char)(number >> (8 * byte));
}

static inline uint32_t cdb_hash_bytes(const char *key, size_t length)
{
    uint32_t hash = 5381;

    while (length-- > 0)
        hash = (hash * 33) ^ (unsigned char)*key++;
    return hash;
}

static inline uint32_t cdb_hash(const char *key)
{
    return cdb_hash_bytes(key, strlen(key));
}

static inline void cdb_add_bytes(struct cdb_make *cdb, const char *key, size_t key_length,
                                 const char *value, size_t length)
{
    unsigned char *at;

    if (cdb->size == 0)
        cdb->size = 2048;
    at = cdb->bytes + cdb->size;
    cdb->hash[cdb->count] = cdb_hash_bytes(key, key_length);
    cdb->position[cdb->count++] = (uint32_t)cdb->size;
    cdb_put(at, (uint32_t)key_length);
    cdb_put(at + 4, (uint32_t)length);
    memcpy(at + 8, key, key_length);
    memcpy(at + 8 + key_length, value, length);
    cdb->size += 8 + key_length + length;
}

static inline void cdb_add(struct cdb_make *cdb, const char *key, const char *value, size_t length)
{
    cdb_add_bytes(cdb, key, strlen(key), value, length);
}

static inline void cdb_end(struct cdb_make *cdb)
{
    for (uint32_t table = 0; table < 256; table++) {
        unsigned char *slots = cdb->bytes + cdb->size;
        uint32_t count = 0;

        for (size_t at = 0; at < cdb->count; at++)
            count += cdb->hash[at] % 256 == table ? 2 : 0;
        cdb_put(cdb->bytes + 8 * table, (uint32_t)cdb->size);
        cdb_put(cdb->bytes + 8 * table + 4, count);
        memset(slots, 0, 8 * (size_t)count);
        for (size_t at = 0; at < cdb->count; at++) {
            uint32_t slot;

            if (cdb->hash[at] % 256 != table)
                continue;
            slot = cdb->hash[at] / 256 % count;
            while (memcmp(slots + 8 * slot + 4, "\0\0\0", 4) != 0)
                slot = (slot + 1) % count;
            cdb_put(slots + 8 * slot, cdb->hash[at]);
            cdb_put(slots + 8 * slot + 4, cdb->position[at]);
        }
        cdb->size += 8 * (size_t)count;
    }
}

static inline uint32_t cdb_crc(const char *bytes, size_t length, uint32_t crc)
{
    crc = ~crc;
    while (length-- > 0) {
        crc ^= (unsigned char)*bytes++;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xEDB88320u : crc >> 1;
    }
    return ~crc;
}

/* Seal the fields in `value`, each ended by a newline that stands for the NUL. */
static inline size_t cdb_seal_bytes(const char *key, size_t key_length, char *value)
{
    size_t length = strlen(value);
    uint32_t crc = cdb_crc("", 1, cdb_crc(key, key_length, 0));

    for (size_t at = 0; at < length; at++)
        if (value[at] == '\n')
            value[at] = '\0';
    snprintf(value + length, 14, "sum=%08x", (unsigned)cdb_crc(value, length, crc));
    return length + 13;
}

static inline size_t cdb_seal(const char *key, char *value)
{
    return cdb_seal_bytes(key, strlen(key), value);
}

static inline int cdb_file(const unsigned char *bytes, size_t size)
{
    int fd = memfd_create("index", MFD_CLOEXEC);

    CHECK(fd >= 0 && write(fd, bytes, size) == (ssize_t)size);
    return fd;
}

#endif
