/* The last steps, inside the new root: where the application starts, and what it is. */
#ifndef SHIFTER_COMMAND_H
#define SHIFTER_COMMAND_H

#include "args.h"
#include "plan.h"
#include "record.h"

/* What to run: the arguments, or as --entrypoint says, or a shell.  Ended by NULL; inside or not,
   for the shell is looked at only by command_run. */
char **command_choose(const struct job *job, const struct record *record);

/* Go where the application shall start; returns the name of that directory.  A directory that is not
   in the container ends the launch, unless the site or the caller is lenient. */
const char *command_enter_workdir(const struct job *job, const struct record *record,
                                  const struct plan *plan);

/* Look for its program, as command_run will: what one has found the kernel knows for all, while those
   who ask at once wait for each other at every directory. */
void command_find(char *const *command, char *const *environment);

/* Become the application; without a command, a shell. */
_Noreturn void command_run(char **command, char **environment);

#endif
