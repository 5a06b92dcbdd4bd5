/* The application's environment: the caller's, the image's over it, and what we add. */
#ifndef SHIFTER_ENVIRONMENT_H
#define SHIFTER_ENVIRONMENT_H

#include "record.h"

/* From malloc, ended by NULL; the strings are shared with `caller` and the record. */
char **environment_build(char *const *caller, const struct record *record, const char *request);

#endif
