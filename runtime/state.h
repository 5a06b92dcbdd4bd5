/* The file of a container: whose it is, and who lives in it (README.md). */
#ifndef SHIFTER_STATE_H
#define SHIFTER_STATE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Who has the namespaces open, and as which descriptors: the keeper, for a while; and who serves
   the image, or 0. */
struct keeper_place {
    pid_t pid;
    int user, mount;
    pid_t server;
};

struct state {
    int ready;
    const char *key; /* not ended by NUL */
    size_t key_length;
    uint64_t user, mount; /* inodes of the namespaces */
    pid_t founder;
    const char *lines; /* of ranks and of the keeper */
    int is_part;       /* there are more of them, between the first and the last */
};

struct namespaces {
    int user, mount;
    pid_t rank; /* the rank, neither founder nor keeper, that they are of; or 0 */
};

/* Lock the file: F_RDLCK, F_WRLCK or F_UNLCK; `wait` sleeps until it is free.  Such locks are the
   process's own: its children do not have them, and its death frees them.  -1 if not. */
int state_lock(int file, short type, int wait);

/* Whether the file still has its name: one that was removed meanwhile is nobody's. */
int state_is_there(int file);

/* Read the file's text, which must end with NUL and outlive the state; what breaks the format is
   not ready. */
void state_parse(struct state *state, const char *text, size_t length);

/* The same of an open file, as far as is worth it: then the state says that it is a part.  The text is
   from malloc. */
void state_read(struct state *state, int file);
void state_read_whole(struct state *state, int file);

/* Make the container ready: its namespaces are the caller's own, and he is its founder; `keeper` may
   be NULL.  -1 and errno if the node has no room for that. */
int state_write(int file, const char *key, size_t key_length, const struct keeper_place *keeper);

/* Add the keeper. */
void state_keep(int file, const struct keeper_place *keeper);

/* Add the caller to the ranks, and before it another one that lives, if that is not 0; a line that
   does not fit is one rank less that can be asked. */
void state_join(int file, pid_t other);

/* Open the container's namespaces, from whoever lives in it; -1 if nobody does, or if its server is
   dead: then nobody in it can read any more. */
int state_open(const struct state *state, struct namespaces *namespaces);

#endif
