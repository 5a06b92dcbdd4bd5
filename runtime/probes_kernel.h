/* What of the kernel's a launch needs, call by call. */
#ifndef SHIFTER_PROBES_KERNEL_H
#define SHIFTER_PROBES_KERNEL_H

#include "probes.h"

void try_kernel(const struct visit *visit);
void try_user(const struct visit *visit);
void try_mount(const struct visit *visit);
void try_fuse(const struct visit *visit);
void try_calls(const struct visit *visit);
void try_join(const struct visit *visit);
void try_watch(const struct visit *visit);

#endif
