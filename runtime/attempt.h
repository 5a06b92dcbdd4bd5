/* A part of a prologue or an epilogue that may fail, or hang on a shared filesystem, without the
   rest.

   It runs in a child.  What it says when it fails becomes one line of ours. */
#ifndef SHIFTER_ATTEMPT_H
#define SHIFTER_ATTEMPT_H

/* Run `work` in a child for at most `most_ms`, less if the prologue's time is over.  0 if the child
   did not end well: then that was said, beginning with `what` where the child has not said it. */
int attempt(void (*work)(void *with), void *with, const char *what, int most_ms);

/* Say one line: a fact, and advice in brackets, which may be NULL or empty. */
void say_trouble(const char *fact, const char *advice);

#endif
