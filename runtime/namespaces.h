/* A user namespace and a mount namespace of our own: power over our mounts, and over nothing else. */
#ifndef SHIFTER_NAMESPACES_H
#define SHIFTER_NAMESPACES_H

void namespaces_enter_user(void);
void namespaces_enter_mount(void);

#endif
