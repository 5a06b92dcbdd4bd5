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

/* From now on all that is wrong with `file` is wanted: complaints are listed on standard error, one a
   line, where a launch would end at the first. */
void complaints_list(const char *file);

/* Whether to read on after this one: it is listed then, and as good as none. */
int complaint_listed(struct complaint *why);

/* How many have been listed. */
unsigned complaints_listed(void);

/* End the launch with it; `file` may be NULL. */
_Noreturn void fail_complaining(const struct complaint *why, const char *file);

#endif
