/* The keys of udiRoot.conf (docs/udiRoot.conf.md). */
#ifndef SHIFTER_KEYS_H
#define SHIFTER_KEYS_H

#include <stddef.h>

enum key_kind {
    KEY_END, /* of a table */
    KEY_NO_EFFECT,
    KEY_DEPRECATED,
    /* of the file */
    KEY_IMAGE_PATH,
    KEY_SYSTEM,
    KEY_DEFAULT_IMAGE_TYPE,
    KEY_DEFAULT_MODULES,
    KEY_OPT_UDI_IMAGE,
    KEY_ETC_PATH,
    KEY_POPULATE_ETC,
    KEY_USERS_TO_IMPORT,
    KEY_MAX_GROUP_COUNT,
    KEY_PROPAGATION,
    KEY_CACHE_SIZE_LIMIT,
    KEY_CACHE_TYPES,
    KEY_CACHE_PATH,
    KEY_LENIENT_WORKDIR,
    KEY_MKFS_XFS,
    KEY_UDI_MOUNT,
    KEY_PRE_HOOK,
    KEY_POST_HOOK,
    /* of the file and of modules */
    KEY_FS,
    KEY_ENV,
    KEY_ENV_APPEND,
    KEY_ENV_PREPEND,
    KEY_ENV_UNSET,
    /* of modules */
    KEY_COPY_PATH,
    KEY_CONFLICT,
    KEY_USERHOOK,
    KEY_ROOTHOOK,
    KEY_ENABLED,
    KEY_REQUIRES,
};

struct key {
    const char *name;
    enum key_kind kind;
    const char *why; /* it has no effect */
};

/* What a file may hold, and what may follow `module_NAME_`; each ended by a nameless one. */
extern const struct key file_keys[], module_keys[];

/* The key `name`, or NULL. */
const struct key *key_find(const struct key *keys, const char *name);
const struct key *key_find_in_any_case(const struct key *keys, const char *name);

/* The one that looks most like `name`. */
const struct key *key_nearest(const struct key *keys, const char *name);

#endif
