/* One container for all launches on this node that want the same: found it, or join it. */
#ifndef SHIFTER_CONTAINER_H
#define SHIFTER_CONTAINER_H

#include "keeper.h"
#include "node.h"

#include <stddef.h>

struct container {
    struct node node;
    char name[NODE_FILE_NAME];   /* of its file in the node directory; empty: it is shared with nobody */
    const char *key; /* what all who share it have in common */
    size_t key_length;
    int file; /* the file, locked for writing by the founder; -1: none */
    struct keeper keeper; /* which the founder has started */
};

enum container_role {
    CONTAINER_JOINED, /* the caller is in it now, and the node directory closed */
    CONTAINER_FOUND   /* the caller has to make it, and then to call container_ready */
};

/* Become part of the container with this key, which must outlive `container`.  Sleeps while
   somebody else founds it. */
enum container_role container_enter(struct container *container, const struct node *node,
                                    const char *key, size_t key_length);

/* Enter namespaces, and close their files. */
void container_join(const struct namespaces *namespaces);

/* Share it with nobody. */
void container_alone(struct container *container);

/* The caller has entered what it has made: let others in, who ask the keeper. */
void container_ready(struct container *container);

/* The caller will not make it: somebody else may. */
void container_leave(struct container *container);

#endif
