/* The last steps, inside the new root: where the application starts, and what it is. */
#ifndef SHIFTER_COMMAND_H
#define SHIFTER_COMMAND_H

#include "args.h"
#include "record.h"

/* Go where the application shall start; `cwd` is the caller's directory, or NULL. */
void command_enter_workdir(const struct job *job, const struct record *record, const char *cwd);

/* Become the application. */
_Noreturn void command_run(const struct job *job, char **environment);

#endif
