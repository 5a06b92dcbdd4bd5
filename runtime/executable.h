/* Why the kernel does not execute a file: it says "No such file or directory" of one that is there,
   but whose interpreter is not. */
#ifndef SHIFTER_EXECUTABLE_H
#define SHIFTER_EXECUTABLE_H

/* A hint for execve(2) of `path`, which failed with `error`; NULL: nothing is wrong with it that can
   be seen. */
const char *executable_explain(const char *path, int error);

/* Whether a file that the kernel takes for no program can be a shell's script: it is text. */
int executable_is_text(const char *path);

#endif
