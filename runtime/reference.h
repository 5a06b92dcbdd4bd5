/* Image names: what a user writes, and its one key in the index (spool/index.md, "Names"). */
#ifndef SHIFTER_REFERENCE_H
#define SHIFTER_REFERENCE_H

/* The longest key: a domain and a path of 255 characters each, ":" and a tag of 128, and NUL. */
enum { REFERENCE_MAX = 255 + 1 + 255 + 1 + 128 + 1 };

/* The key of an id: "id:" and the digits.  So many of them may stand for all, where they fit one
   image (id_prefix.h). */
enum { ID_DIGITS = 64, ID_KEY_LENGTH = 3 + ID_DIGITS, ID_DIGITS_LEAST = 4 };

/* Write the key of `text` into `key`; 0, or -1 where `text` is no image name. */
int reference_normalise(const char *text, char key[REFERENCE_MAX]);

/* Whether a key is that of an id, or the beginning of one. */
int reference_is_id(const char *key);
int reference_is_id_prefix(const char *key);

#endif
