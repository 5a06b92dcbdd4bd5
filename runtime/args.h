/* What the caller asks for: argv and the environment. */
#ifndef SHIFTER_ARGS_H
#define SHIFTER_ARGS_H

#include "words.h"

enum action { LAUNCH, DRY_RUN, CHECK_CONFIG, DOCTOR };

struct job {
    enum action action;
    const char *checked; /* the file of --check-config, or NULL: that of a launch */
    const char *image;   /* as written, or with the type that the environment gives it */
    const char *request; /* what the container is told that the image is called */
    const char *store;   /* --store or SHIFTER_STORE, or NULL */
    int workdir_asked;   /* -w was given … */
    const char *workdir; /* … with this directory, or NULL: the image's */
    int entrypoint_asked;   /* --entrypoint was given … */
    const char *entrypoint; /* … with this command, or NULL: the image's */
    struct words volumes;   /* lists of them, one an option */
    const char *modules;    /* a list, or NULL: the site's */
    struct words env;       /* -e: NAME=value, or NAME: as the caller has it */
    struct words env_files; /* paths */
    int clear_env, verbose;
    int lenient_workdir; /* a working directory that the container lacks is no error */
    unsigned writable; /* in percent of the node's memory; 0: the root is read-only */
    char **command;    /* ended by NULL; may be empty */
};

/* Read the command line and the environment, and no file; ends the program itself for --help,
   --version and mistakes. */
void args_read(struct job *job, char **argv);

#endif
