/* An image with nothing in it, to be tried where there is none. */
#ifndef SHIFTER_BLANK_H
#define SHIFTER_BLANK_H

/* Open it: a file in memory that nobody else sees. */
int blank_image(void);

#endif
