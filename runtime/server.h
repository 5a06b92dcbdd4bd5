/* The process that serves an image: made so that it holds nothing of the caller's. */
#ifndef SHIFTER_SERVER_H
#define SHIFTER_SERVER_H

#include <limits.h>

struct server {
    char program[PATH_MAX]; /* empty: this one */
    char id[13];            /* the first digits of the image's id */
    int image, fuse, go, errors;
    int is_of_job; /* not bound to the processors of the rank that starts it */
};

/* Find who can serve `image`: we ourselves what our worker builds; else the program of squashfuse,
   and fails if this node has none. */
void server_find(struct server *server);
/* Find the program for what others have built. */
void server_find_program(struct server *server);

const char *server_name(const struct server *server);

/* Become the server, as soon as `go` has a byte.  Runs in a child of the keeper. */
_Noreturn void server_run(const struct server *server);

#endif
