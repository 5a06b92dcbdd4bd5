/* What --help prints; README.md shows the same. */
#ifndef SHIFTER_HELP_H
#define SHIFTER_HELP_H

#define USAGE "shifter --image=NAME [OPTION...] [--] [COMMAND [ARG...]]"

extern const char help[];

#endif
