/* What the caller asks for: argv and the environment. */
#ifndef SHIFTER_ARGS_H
#define SHIFTER_ARGS_H

#include <limits.h>

struct job {
    const char *image;   /* as written */
    const char *store;   /* --store, or NULL */
    int workdir_asked;   /* -w was given … */
    const char *workdir; /* … with this directory, or NULL: the image's */
    char **command;      /* ended by NULL; empty: a shell */
};

/* Read the command line; ends the program itself for --help, --version and mistakes. */
void args_read(struct job *job, char **argv);

/* Where the store is: --store, SHIFTER_STORE, udiRoot.conf, the user's own; absolute. */
void args_store(const struct job *job, char store[PATH_MAX]);

#endif
