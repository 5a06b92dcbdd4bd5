/* Whether a module's libraries are those that the image's programs need.

   A module that binds the host's libmpi.so.12 into a container serves programs that were linked
   with a libmpi.so.12, and no others: the loader looks for exactly the name that stands in the
   program.  With another one, say libmpi.so.40, the program would start with the image's own
   library, and its ranks would not find each other: that is found out here, and said. */
#ifndef SHIFTER_REQUIRES_H
#define SHIFTER_REQUIRES_H

struct mismatch {
    const char *wanted; /* what the module asks for */
    const char *found;  /* what the image has instead */
};

/* Look for a library of `libs`, the names that the image's programs need, that is one of
   `requires` but for the version, while none of that stem is exactly one of them.  Both lists end
   with NULL, and may be NULL.  An image that needs no such library is no mismatch: nothing in it
   can use the module, and nothing is harmed by it. */
int requires_differ(const char *const *libs, const char *const *requires,
                    struct mismatch *mismatch);

/* Fail if they do, naming `module`; to be called before anything is mounted. */
void requires_check(const char *const *libs, const char *module, const char *const *requires);

#endif
