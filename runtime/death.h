/* Why the server of an image has ended, and the line that tells the applications. */
#ifndef SHIFTER_DEATH_H
#define SHIFTER_DEATH_H

#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

enum { DEATH_REASON = 1280 };

/* How many processes the kernel of this node has killed for want of memory (/proc/vmstat); 0 where
   it does not say. */
uint64_t death_memory_kills(void);

/* Put into words why a child ended: `status` and `usage` are those of wait4(2), `said` is the last
   line of its standard error, and `memory_kills` what death_memory_kills was when it started. */
void death_reason(char reason[DEATH_REASON], int status, const struct rusage *usage,
                  const char *said, uint64_t memory_kills);

/* Write one line to the standard error of each process in the mount namespace whose inode is
   `mount`, once to each open file.  The caller must be in the parent of their user namespace. */
void death_tell(uint64_t mount, const char *line, size_t length);

#endif
