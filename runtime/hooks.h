/* Userhooks of modules, run inside as the user, before the application. */
#ifndef SHIFTER_HOOKS_H
#define SHIFTER_HOOKS_H

#include "modules.h"

/* Run those of `chosen`, which ends with NULL, one after the other and without environment; one
   that fails ends the launch. */
void hooks_run(const struct module *const *chosen);

#endif
