/* The process that serves an image: made so that it holds nothing of the caller's. */
#ifndef SHIFTER_SERVER_H
#define SHIFTER_SERVER_H

#include <limits.h>

#define SERVER_PROGRAM "squashfuse_ll"

struct server {
    char program[PATH_MAX];
    int image, fuse, go, errors;
};

/* Become the server.  Runs in a child of a child of the launcher. */
_Noreturn void server_run(const struct server *server);

#endif
