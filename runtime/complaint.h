/* What is wrong with a text.  Parsers only complain, so that tests can give them anything; who
   called them knows which file or option the text is from, and fails. */
#ifndef SHIFTER_COMPLAINT_H
#define SHIFTER_COMPLAINT_H

enum { COMPLAINT_MAX = 768 };

struct complaint {
    unsigned line; /* of the text, from 1; 0: it has no lines */
    char fact[COMPLAINT_MAX];
    char advice[COMPLAINT_MAX]; /* may be empty */
};

/* Fill in fact and advice; the answer is -1, for the caller to return. */
int complain(struct complaint *why, const char *advice, const char *fact, ...)
    __attribute__((format(printf, 3, 4)));

/* End the launch with it; `file` may be NULL. */
_Noreturn void fail_complaining(const struct complaint *why, const char *file);

#endif
