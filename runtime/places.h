/* Where things are on this node: the store, the caller's home, the caller. */
#ifndef SHIFTER_PLACES_H
#define SHIFTER_PLACES_H

#include "args.h"
#include "config.h"

#include <limits.h>

/* --store, SHIFTER_STORE, udiRoot.conf, the user's own; absolute. */
void place_of_store(const struct job *job, const struct config *config, char store[PATH_MAX]);

/* The caller's home and directory, or NULL; looked at so that an automounter brings them before
   our namespaces, in which it cannot.  `own` says that the home is the caller's, `error` is the errno
   for which there is no directory. */
const char *place_of_home(int *own);
const char *place_of_caller(char cwd[PATH_MAX], int *error);

/* What the caller's shell calls his directory `cwd`, links included; or NULL. */
const char *place_in_callers_words(const char *cwd);

#endif
