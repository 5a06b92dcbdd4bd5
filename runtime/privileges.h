/* Nothing that was needed to build the container is left to what runs in it. */
#ifndef SHIFTER_PRIVILEGES_H
#define SHIFTER_PRIVILEGES_H

/* Give up every capability, and the chance of regaining one; -1 and errno on failure. */
int privileges_drop(void);

/* The same for who executes nothing: what would only bound that stays, for it takes forty calls. */
int privileges_drop_here(void);

#endif
