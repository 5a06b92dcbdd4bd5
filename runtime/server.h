/* The process that serves an image: made so that it holds nothing of the caller's. */
#ifndef SHIFTER_SERVER_H
#define SHIFTER_SERVER_H

#include <limits.h>

struct server {
    char program[PATH_MAX];
    int image, fuse, go, errors;
};

/* Find the program that serves images; fails if this node has none. */
void server_find(struct server *server);

/* Become the server, as soon as `go` has a byte.  Runs in a child of the keeper. */
_Noreturn void server_run(const struct server *server);

#endif
