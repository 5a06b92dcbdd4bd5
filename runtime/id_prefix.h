/* The beginning of an image's id, where it is that of one image only. */
#ifndef SHIFTER_ID_PREFIX_H
#define SHIFTER_ID_PREFIX_H

#include "index.h"
#include "reference.h"

#include <stddef.h>

enum { ID_KEYS_SHOWN = 3 };

/* The keys of published images that fit; `count` may be larger than what is kept of them. */
struct id_keys {
    char keys[ID_KEYS_SHOWN][ID_KEY_LENGTH + 1];
    size_t count;
};

/* Find the images in `store` whose keys begin with `prefix`, that of a reference, in the index open
   on `index`.  The index cannot be asked for beginnings, so the names of files are candidates:
   those of one of 256 directories.  INDEX_FOUND also if there is none. */
enum index_answer id_prefix_find(const char *store, int index, const char *prefix,
                                 struct id_keys *found, const char **why);

#endif
