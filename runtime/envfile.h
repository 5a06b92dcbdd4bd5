/* Files of variables (--env-file). */
#ifndef SHIFTER_ENVFILE_H
#define SHIFTER_ENVFILE_H

#include "complaint.h"
#include "words.h"

/* Add each NAME=value of `text`, one a line, without blanks around; quotes are part of a value.
   Empty lines and those that begin with # say nothing.  `text` is changed, and pointed into. */
int envfile_parse(struct words *variables, char *text, struct complaint *why);

/* The same of all these files of the node, one after the other; a wrong one ends the launch. */
void envfiles_read(struct words *variables, const struct words *paths);

#endif
