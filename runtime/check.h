/* What a site wants to know of its udiRoot.conf before users do (--check-config). */
#ifndef SHIFTER_CHECK_H
#define SHIFTER_CHECK_H

/* Read the file `path`, or if it is NULL the one that a launch here would read; say on standard
   output which keys have no effect, and what is not on this node.  A mistake ends the program. */
void check_config(const char *path);

#endif
