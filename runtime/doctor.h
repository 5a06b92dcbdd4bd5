/* What works on this node for the caller, and what does not (--doctor).

   Nothing is looked up that can be tried: each probe does, in a process of its own, what a launch
   does, by the launcher's own functions.  So what it says is what a launch says. */
#ifndef SHIFTER_DOCTOR_H
#define SHIFTER_DOCTOR_H

#include "probes.h"

/* Try everything, and say on standard output how it went.  Leaves nothing behind.  Returns how the
   program ends: 0 if images can be run here, else 1. */
int doctor(const struct visit *visit);

#endif
