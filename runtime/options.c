#include "options.h"

#include "fail.h"
#include "files.h"

#include <string.h>

#define LIST_HINT "shifter --help lists the options; put -- before a command with its own"

const struct option_rule options[OPTIONS] = {
    [IMAGE] = {"image", 'i', REQUIRED},
    [VOLUME] = {"volume", 'V', REQUIRED},
    [MODULE] = {"module", 'm', REQUIRED},
    [ENV] = {"env", 'e', REQUIRED},
    [ENV_FILE] = {"env-file", '\0', REQUIRED},
    [CLEARENV] = {"clearenv", 'E', NONE},
    [ENTRYPOINT] = {"entrypoint", '\0', OPTIONAL},
    [WORKDIR] = {"workdir", 'w', OPTIONAL},
    [LENIENT_WORKDIR] = {"lenient-workdir", '\0', NONE},
    [WRITABLE] = {"writable", '\0', OPTIONAL},
    [STORE] = {"store", '\0', REQUIRED},
    [VERBOSE] = {"verbose", 'v', NONE},
    [DRY_RUN_ASKED] = {"dry-run", '\0', NONE},
    [CHECK_CONFIG_ASKED] = {"check-config", '\0', OPTIONAL},
    [DOCTOR_ASKED] = {"doctor", '\0', NONE},
    [HELP] = {"help", 'h', NONE},
    [VERSION_SHOWN] = {"version", '\0', NONE},
    [IGNORED] = {"", 'n', NONE},
};

static enum option find_long(const char *word, size_t length)
{
    const char *name = word + strlen("--");
    enum option found = OPTIONS, second = OPTIONS;

    for (enum option at = 0; length > 0 && at < OPTIONS; at++) {
        if (strncmp(options[at].name, name, length) != 0)
            continue;
        if (options[at].name[length] == '\0')
            return at;
        if (found == OPTIONS)
            found = at;
        else if (second == OPTIONS)
            second = at;
    }
    if (second != OPTIONS)
        fail(0, LIST_HINT, "'%s' may be '--%s' or '--%s'", word, options[found].name,
             options[second].name);
    return found;
}

static enum option find_short(char letter)
{
    for (enum option at = 0; at < OPTIONS; at++)
        if (letter != '\0' && options[at].letter == letter)
            return at;
    return OPTIONS;
}

enum option option_recognise(const char *word, const char **value)
{
    enum option option;

    *value = NULL;
    if (word[1] == '-') {
        size_t length = strcspn(word + 2, "=");

        option = find_long(word, length);
        if (word[2 + length] == '=')
            *value = word + 2 + length + 1;
    } else {
        option = find_short(word[1]);
        if (option != OPTIONS && word[2] != '\0')
            *value = word + 2 + (word[2] == '=');
    }
    if (option == OPTIONS)
        fail(0, LIST_HINT, "unknown option: '%s'", word);
    if (options[option].value == NONE && *value != NULL)
        fail(0, LIST_HINT, "option '--%s' takes no value: '%s'", options[option].name, word);
    return option;
}

int option_first_letter(const char *word, char letter[3])
{
    enum option option = word[1] != '-' && word[1] != '\0' ? find_short(word[1]) : OPTIONS;

    memcpy(letter, word, 2);
    letter[2] = '\0';
    return option != OPTIONS && options[option].value == NONE && word[2] != '\0' && word[2] != '=';
}

const char *option_without_letter(const char *word)
{
    char *rest = must_copy(word + 1);

    rest[0] = '-';
    return rest;
}
