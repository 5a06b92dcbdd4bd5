/* Resource limits of the caller that concern more than the application. */
#ifndef SHIFTER_RLIMITS_H
#define SHIFTER_RLIMITS_H

#include <stdint.h>
#include <stdio.h>

/* Write the hard limits that may end an image's server, and a low priority that it would keep:
   launches that differ in them share no container, for the server of one serves the others. */
void rlimits_write(FILE *key);

/* Say which of them will end it soon, before the command starts. */
void rlimits_warn(void);

/* A hint that names the limit under which a server cannot start or work; NULL: there is none. */
const char *rlimits_hint(void);

/* Lift the soft limit of the size of files for the launch itself, and let a write beyond the hard one
   be an error; then that of descriptors, for a container to be made.  rlimits_restore undoes both
   before the application. */
void rlimits_lift(void);
void rlimits_lift_descriptors(void);
void rlimits_restore(void);

/* The limit of processor time, in seconds; UINT64_MAX: there is none. */
uint64_t rlimits_processor_seconds(void);

#endif
