/* What the index said of a name, kept on the node for the ranks still to come (README.md). */
#ifndef SHIFTER_MEMO_H
#define SHIFTER_MEMO_H

#include "index.h"
#include "node.h"

struct memo {
    uint64_t generation;
    uint64_t directory; /* which directory that generation was in (file_id_hash) */
    struct value value;
};

/* What is kept of `name` in the `store`; 0 if nothing is. */
int memo_read(const struct node *node, const char *store, const char *name, struct memo *memo);

/* Keep it; a node that has no room for it asks the index again. */
void memo_write(const struct node *node, const char *store, const char *name,
                const struct memo *memo);

/* The same for a text: what memo_read reads. */
int memo_parse(char *text, size_t length, const char *store, const char *name, struct memo *memo);

#endif
