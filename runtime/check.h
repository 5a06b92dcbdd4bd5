/* What a site wants to know of its udiRoot.conf before users do (--check-config). */
#ifndef SHIFTER_CHECK_H
#define SHIFTER_CHECK_H

/* Read the file `path`, or if it is NULL the one that a launch here would read.  List all mistakes on
   standard error; say on standard output which keys have no effect, what is not on this node, and
   what will not work.  The answer is the program's exit code. */
int check_config(const char *path);

#endif
