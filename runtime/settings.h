/* What a key of udiRoot.conf does with its value. */
#ifndef SHIFTER_SETTINGS_H
#define SHIFTER_SETTINGS_H

#include "config.h"

/* Set it; `value` is changed, and pointed into. */
int setting_of_file(struct config *config, const struct key *key, char *value,
                    struct complaint *why);
int setting_of_module(struct module *module, const struct key *key, char *value,
                      struct complaint *why);

#endif
