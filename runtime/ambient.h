/* What the environment asks for, where the command line does not. */
#ifndef SHIFTER_AMBIENT_H
#define SHIFTER_AMBIENT_H

#include "args.h"

/* Fill in what is not set. */
void ambient_read(struct job *job);

/* A variable that is set and not empty, or NULL. */
const char *ambient(const char *name);

#endif
