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
    int has_waited; /* for another launch, so that what it shows may have changed meanwhile */
    struct namespaces namespaces; /* of CONTAINER_JOIN: open */
    struct keeper keeper; /* which the founder has started */
};

enum container_role {
    CONTAINER_JOIN,  /* there is one, whose namespaces are open */
    CONTAINER_CREATE /* the caller has to make it, and then to call container_ready */
};

/* Look for the container with this key, which must outlive `container`.  Sleeps while another
   launch makes it.  The node directory may be made anew. */
enum container_role container_find(struct container *container, struct node *node,
                                   const char *key, size_t key_length);

/* Enter the namespaces of a container, and close their files. */
void container_join(const struct namespaces *namespaces);

/* Close them without entering. */
void container_pass(const struct namespaces *namespaces);

/* Share it with nobody. */
void container_alone(struct container *container);

/* The caller has entered what it has made: let others in, who ask the keeper. */
void container_ready(struct container *container);

/* The caller will not make it: another launch may. */
void container_leave(struct container *container);

/* The caller makes another container than the key says: let no other launch join it. */
void container_hide(struct container *container);

#endif
