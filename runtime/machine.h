/* What a node can run, in the words of the index (spool/index.md, "Platforms"). */
#ifndef SHIFTER_MACHINE_H
#define SHIFTER_MACHINE_H

#include <stddef.h>

struct machine {
    const char *architecture; /* "" where it has no word: then it is thought to run everything */
    int level;                /* of x86-64, 1 to 4; 0: the processor is asked if it matters */
};

/* The machine that this program is for and runs on. */
struct machine machine_own(void);

/* Whether it runs what is made for `platform`; NULL, which is not known, is thought to run. */
int machine_runs(const struct machine *machine, const char *platform);

/* The key of what such machines are given as `name`, which may hold NUL bytes; from malloc. */
char *machine_key(const struct machine *machine, const char *name, size_t *length);

#endif
