#include "args.h"

#include "ambient.h"
#include "fail.h"
#include "files.h"
#include "help.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define USAGE_HINT "usage: " USAGE
#define LIST_HINT "shifter --help lists the options"

enum { WRITABLE_DEFAULT = 50 };

enum option {
    IMAGE,
    VOLUME,
    MODULE,
    ENV,
    ENV_FILE,
    CLEARENV,
    ENTRYPOINT,
    ENTRY,
    WORKDIR,
    WRITABLE,
    STORE,
    VERBOSE,
    DRY_RUN_ASKED,
    CHECK_CONFIG_ASKED,
    HELP,
    VERSION_SHOWN,
    IGNORED,
    OPTIONS
};
enum value_rule { NONE, OPTIONAL, REQUIRED };

static const struct {
    const char *name;
    char letter;
    enum value_rule value;
} options[OPTIONS] = {
    [IMAGE] = {"image", 'i', REQUIRED},
    [VOLUME] = {"volume", 'V', REQUIRED},
    [MODULE] = {"module", 'm', REQUIRED},
    [ENV] = {"env", 'e', REQUIRED},
    [ENV_FILE] = {"env-file", '\0', REQUIRED},
    [CLEARENV] = {"clearenv", 'E', NONE},
    [ENTRYPOINT] = {"entrypoint", '\0', OPTIONAL},
    [ENTRY] = {"entry", '\0', OPTIONAL},
    [WORKDIR] = {"workdir", 'w', OPTIONAL},
    [WRITABLE] = {"writable", '\0', OPTIONAL},
    [STORE] = {"store", '\0', REQUIRED},
    [VERBOSE] = {"verbose", 'v', NONE},
    [DRY_RUN_ASKED] = {"dry-run", '\0', NONE},
    [CHECK_CONFIG_ASKED] = {"check-config", '\0', OPTIONAL},
    [HELP] = {"help", 'h', NONE},
    [VERSION_SHOWN] = {"version", '\0', NONE},
    [IGNORED] = {"", 'n', NONE},
};

static enum option find_long(const char *name, size_t length)
{
    for (enum option at = 0; length > 0 && at < OPTIONS; at++)
        if (strlen(options[at].name) == length && memcmp(options[at].name, name, length) == 0)
            return at;
    return OPTIONS;
}

static enum option find_short(char letter)
{
    for (enum option at = 0; at < OPTIONS; at++)
        if (letter != '\0' && options[at].letter == letter)
            return at;
    return OPTIONS;
}

/* Which option `word` is, and in `value` what is attached to it, or NULL. */
static enum option recognise(const char *word, const char **value)
{
    enum option option;

    *value = NULL;
    if (word[1] == '-') {
        size_t length = strcspn(word + 2, "=");

        option = find_long(word + 2, length);
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

static _Noreturn void print(const char *text)
{
    if (fputs(text, stdout) == EOF || fflush(stdout) == EOF)
        fail(errno, NULL, "cannot write to standard output");
    exit(EXIT_SUCCESS);
}

static void set_workdir(struct job *job, const char *value)
{
    if (value != NULL && value[0] != '/')
        fail(0, "write --workdir=/DIRECTORY", "not an absolute path: '%s'", value);
    job->workdir_asked = 1;
    job->workdir = value;
}

static void set_entrypoint(struct job *job, const char *value)
{
    if (value != NULL && value[0] == '\0')
        fail(0, "write --entrypoint for the image's own", "no command: '--entrypoint='");
    job->entrypoint_asked = 1;
    job->entrypoint = value;
}

/* Percent of the node's memory, with or without its sign. */
static void set_writable(struct job *job, const char *value)
{
    size_t digits = value != NULL ? strspn(value, "0123456789") : 0;

    job->writable = WRITABLE_DEFAULT;
    if (value == NULL)
        return;
    job->writable = digits > 0 && digits <= 3 ? (unsigned)atoi(value) : 0;
    if (job->writable < 1 || job->writable > 100 ||
        strcmp(value + digits + (value[digits] == '%'), "") != 0)
        fail(0, "write --writable=25%", "not between 1 and 100 percent of memory: '%s'", value);
}

static void add_variable(struct job *job, const char *value)
{
    if (value[0] == '=')
        fail(0, "write --env=NAME=VALUE", "a variable without a name: '%s'", value);
    words_add(&job->env, value);
}

/* Options that have a value. */
static void take_value(struct job *job, enum option option, const char *value)
{
    switch (option) {
    case IMAGE:
        job->image = value;
        break;
    case VOLUME:
        words_add(&job->volumes, value);
        break;
    case MODULE:
        job->modules = value;
        break;
    case ENV:
        add_variable(job, value);
        break;
    case ENV_FILE:
        words_add(&job->env_files, value);
        break;
    case STORE:
        job->store = value;
        break;
    default:
        break;
    }
}

/* Options that have none, or may have one; NULL: it has not. */
static void take(struct job *job, enum option option, const char *value)
{
    switch (option) {
    case CLEARENV:
        job->clear_env = 1;
        break;
    case ENTRYPOINT:
    case ENTRY:
        set_entrypoint(job, value);
        break;
    case WORKDIR:
        set_workdir(job, value);
        break;
    case WRITABLE:
        set_writable(job, value);
        break;
    case VERBOSE:
        job->verbose = 1;
        break;
    case DRY_RUN_ASKED:
        job->action = DRY_RUN;
        break;
    case CHECK_CONFIG_ASKED:
        job->action = CHECK_CONFIG;
        job->checked = value;
        break;
    case HELP:
        print(help);
    case VERSION_SHOWN:
        print("shifter " VERSION "\n");
    default:
        break;
    }
}

/* Letters may stand together, -Ev, as long as those before the last take no value. */
static int first_letter(const char *word, char letter[3])
{
    enum option option = word[1] != '-' && word[1] != '\0' ? find_short(word[1]) : OPTIONS;

    memcpy(letter, word, 2);
    letter[2] = '\0';
    return option != OPTIONS && options[option].value == NONE && word[2] != '\0' && word[2] != '=';
}

static const char *without_letter(const char *word)
{
    char *rest = must_copy(word + 1);

    rest[0] = '-';
    return rest;
}

static const char *needed(enum option option, const char *value)
{
    if (value == NULL || value[0] == '\0')
        fail(0, USAGE_HINT, "option '--%s' needs a value", options[option].name);
    return value;
}

static char **read_option(struct job *job, char **argv)
{
    const char *word = *argv, *value;
    char letter[3];
    enum option option;

    while (first_letter(word, letter)) {
        take(job, recognise(letter, &value), NULL);
        word = without_letter(word);
    }
    option = recognise(word, &value);
    if (options[option].value == REQUIRED && value == NULL && argv[1] != NULL)
        value = *++argv;
    if (options[option].value == REQUIRED)
        take_value(job, option, needed(option, value));
    else
        take(job, option, value);
    return argv + 1;
}

static void check_image(const struct job *job)
{
    static const char *const types[] = {"custom:", "local:"};

    if (job->image == NULL)
        fail(0, "shifter --image=NAME:TAG COMMAND, or set SHIFTER_IMAGE", "no image was named");
    for (size_t at = 0; at < sizeof types / sizeof types[0]; at++)
        if (strncmp(job->image, types[at], strlen(types[at])) == 0)
            fail(0, "what lies in a file is brought into the store by: shifterimg import",
                 "there are no images of the type '%.*s': '%s'", (int)strlen(types[at]) - 1,
                 types[at], job->image);
}

void args_read(struct job *job, char **argv)
{
    memset(job, 0, sizeof *job);
    if (argv[0] != NULL)
        argv++;
    while (*argv != NULL && (*argv)[0] == '-' && (*argv)[1] != '\0') {
        if (strcmp(*argv, "--") == 0) {
            argv++;
            break;
        }
        argv = read_option(job, argv);
    }
    job->command = argv;
    ambient_read(job);
    if (job->action != CHECK_CONFIG)
        check_image(job);
}
