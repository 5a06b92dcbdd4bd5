/* How the launcher fails: one line with the fact and the offending value in quotes, then, if we
   know it, one line with what to do next:

       shifter: not an image name: 'Bad Name'
         hint: write NAME:TAG or REGISTRY/NAME:TAG, for example ubuntu:24.04

   Every system call whose failure matters goes through MUST, so that it is one line where it is
   made, and what it was for is said beside it.  Exit codes are those of env(1) and timeout(1). */
#ifndef SHIFTER_FAIL_H
#define SHIFTER_FAIL_H

#include <errno.h>

enum { EXIT_SHIFTER = 125, EXIT_NOT_EXECUTABLE = 126, EXIT_NOT_FOUND = 127 };

#define MUST(call, ...) \
    do { if ((call) < 0) fail(errno, NULL, __VA_ARGS__); } while (0)

/* What messages begin with: "shifter". */
extern const char *fail_program;

/* End with EXIT_SHIFTER.  `error` is an errno value to be put into words, or 0. */
_Noreturn void fail(int error, const char *hint, const char *fact, ...)
    __attribute__((format(printf, 3, 4)));

/* The same with another exit code. */
_Noreturn void fail_as(int status, int error, const char *hint, const char *fact, ...)
    __attribute__((format(printf, 4, 5)));

/* Say the fact and go on. */
void warn(const char *fact, ...) __attribute__((format(printf, 1, 2)));

/* A hint that names values; never freed, for it is the last thing said. */
const char *hint(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
