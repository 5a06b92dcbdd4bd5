/* /var/shifterConfig.json: by it a program knows that it runs in a container, and in which. */
#ifndef SHIFTER_SHIFTER_CONFIG_H
#define SHIFTER_SHIFTER_CONFIG_H

#include "plan.h"

/* Write it into the skeleton, as Shifter does: for the image `id` and the user `user`. */
void shifter_config_write(const struct plan *plan, const char *id, const char *user);

/* In a root that may be written to, let it be read-only all the same. */
void shifter_config_protect(void);

#endif
