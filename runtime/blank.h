/* An image with nothing in it, to be tried where there is none. */
#ifndef SHIFTER_BLANK_H
#define SHIFTER_BLANK_H

/* Open it: a file in memory that nobody else sees; -1 and errno. */
int blank_image(void);

#endif
