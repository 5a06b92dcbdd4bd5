/* What a test or a fuzzer holds: one that is not so is said, and ends the program. */
#ifndef SHIFTER_CHECK_H
#define SHIFTER_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(claim) \
    do { \
        if (!(claim)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #claim); \
            exit(EXIT_FAILURE); \
        } \
    } while (0)

#endif
