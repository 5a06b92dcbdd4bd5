#include "args.h"

#include "ambient.h"
#include "fail.h"
#include "help.h"
#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define USAGE_HINT "usage: " USAGE

enum { WRITABLE_DEFAULT = 50 };

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
        set_entrypoint(job, value);
        break;
    case WORKDIR:
        set_workdir(job, value);
        break;
    case WRITABLE:
        set_writable(job, value);
        break;
    case LENIENT_WORKDIR:
        job->lenient_workdir = 1;
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
    case DOCTOR_ASKED:
        job->action = DOCTOR;
        break;
    case HELP:
        print(help);
    case VERSION_SHOWN:
        print("shifter " VERSION "\n");
    default:
        break;
    }
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

    while (option_first_letter(word, letter)) {
        take(job, option_recognise(letter, &value), NULL);
        word = option_without_letter(word);
    }
    option = option_recognise(word, &value);
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
    const char *scheme = job->image != NULL ? strstr(job->image, "://") : NULL;

    if (job->image == NULL)
        fail(0, "shifter --image=NAME:TAG COMMAND, or set SHIFTER_IMAGE", "no image was named");
    if (scheme != NULL)
        fail(0, hint("write '%s', without // in front", scheme + strlen("://")),
             "not an image name: '%s'", job->image);
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
    if (job->action != CHECK_CONFIG && (job->action != DOCTOR || job->image != NULL))
        check_image(job);
}
