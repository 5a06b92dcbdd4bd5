/* The node's own configuration, which only root writes: SYSCONFDIR/shifter/udiRoot.conf. */
#ifndef SHIFTER_CONFIG_H
#define SHIFTER_CONFIG_H

/* The store it names (imagePath), or NULL if there is no such file or key. */
const char *config_store(void);

#endif
