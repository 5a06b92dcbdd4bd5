/* Volumes, `from[:to][:flag...]`: as users ask for them and as sites do (siteFs). */
#ifndef SHIFTER_VOLUMES_H
#define SHIFTER_VOLUMES_H

#include "complaint.h"
#include "words.h"

#include <stdint.h>

enum volume_asker { ASKED_BY_USER, ASKED_BY_SITE };

struct volume {
    const char *from, *to; /* absolute, without "..", "." and empty components */
    int read_only, recursive, slave, private, optional, cache;
    uint64_t cache_size; /* of a cache of the node, in bytes */
    const char *cache_type;
    unsigned line; /* in udiRoot.conf, or 0 */
};

struct volumes {
    struct volume *list;
    size_t count, room;
};

/* What a site allows a cache of the node to be. */
struct cache_rules {
    uint64_t size_limit;  /* 0: none */
    struct words types;   /* empty: any */
    const char *path;     /* where root may put files of them, or NULL */
    const char *mkfs_xfs; /* the program that makes an xfs for root, or NULL: the system's */
};

/* Read one volume; `text` is changed, and pointed into. */
int volume_parse(struct volume *volume, char *text, enum volume_asker asker,
                 struct complaint *why);

/* Read a list of them, with `;` between, in quotes or not, and add them. */
int volumes_parse(struct volumes *volumes, char *text, enum volume_asker asker,
                  struct complaint *why);

/* Whether the site allows what the user asks for. */
int volume_check_cache(const struct volume *volume, const struct cache_rules *rules,
                       struct complaint *why);

/* Why nothing may be mounted at `path`, a normal one; NULL if it may. */
const char *volume_forbidden(const char *path, enum volume_asker asker);

/* Make `path` normal in place; or say why it cannot be. */
const char *path_normalise(char *path);

/* A number of bytes, with a fraction perhaps, and a unit, in either case: B, or K, M, G, T, P, E, each
   1024 of the one before, with a B behind it perhaps.  What is left of a byte is dropped; a size
   of none is no size. */
int size_parse(const char *text, uint64_t *size);

#endif
