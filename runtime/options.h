/* The options there are, and which of them a word is. */
#ifndef SHIFTER_OPTIONS_H
#define SHIFTER_OPTIONS_H

enum option {
    IMAGE,
    VOLUME,
    MODULE,
    ENV,
    ENV_FILE,
    CLEARENV,
    ENTRYPOINT,
    WORKDIR,
    LENIENT_WORKDIR,
    WRITABLE,
    STORE,
    VERBOSE,
    DRY_RUN_ASKED,
    CHECK_CONFIG_ASKED,
    DOCTOR_ASKED,
    HELP,
    VERSION_SHOWN,
    IGNORED,
    OPTIONS
};
enum value_rule { NONE, OPTIONAL, REQUIRED };

struct option_rule {
    const char *name;
    char letter;
    enum value_rule value;
};

extern const struct option_rule options[OPTIONS];

/* Which option `word` is, and in `value` what is attached to it, or NULL.  As with getopt_long(3), a
   long one may be cut as long as it can be no other: --entry. */
enum option option_recognise(const char *word, const char **value);

/* Letters may stand together, -Ev, as long as those before the last take no value: whether one
   does so at the head of `word`; then `letter` is it, as a word. */
int option_first_letter(const char *word, char letter[3]);

/* What is left of `word` without it. */
const char *option_without_letter(const char *word);

#endif
