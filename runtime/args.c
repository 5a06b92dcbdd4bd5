#include "args.h"

#include "config.h"
#include "fail.h"
#include "files.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define USAGE "shifter [--store DIR] --image=NAME [-w|--workdir[=DIR]] [--] [COMMAND [ARG...]]"

static const char help[] =
    "usage: " USAGE "\n"
    "\n"
    "Run COMMAND, or a shell, in the image NAME.\n"
    "\n"
    "  -i, --image=NAME     the image: NAME:TAG, REGISTRY/NAME:TAG, NAME@DIGEST or id:ID\n"
    "  -w, --workdir[=DIR]  start in DIR, or in the image's working directory;\n"
    "                       without it: in the present directory, if the image has it\n"
    "      --store=DIR      where the images are\n"
    "  -h, --help           show this\n"
    "      --version        show the version\n"
    "\n"
    "environment: SHIFTER_IMAGE (instead of --image), SHIFTER_STORE (instead of --store)\n"
    "exit code: COMMAND's; 125 if shifter fails, 126 if COMMAND cannot be executed,\n"
    "127 if it is not found\n";

enum option { IMAGE, WORKDIR, STORE, HELP, VERSION_SHOWN, OPTIONS };
enum value_rule { NONE, OPTIONAL, REQUIRED };

static const struct {
    const char *name;
    char letter;
    enum value_rule value;
} options[OPTIONS] = {
    [IMAGE] = {"image", 'i', REQUIRED},
    [WORKDIR] = {"workdir", 'w', OPTIONAL},
    [STORE] = {"store", '\0', REQUIRED},
    [HELP] = {"help", 'h', NONE},
    [VERSION_SHOWN] = {"version", '\0', NONE},
};

static enum option find_long(const char *name, size_t length)
{
    for (enum option at = 0; at < OPTIONS; at++)
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
        fail(0, "shifter --help lists the options", "unknown option: '%s'", word);
    if (options[option].value == NONE && *value != NULL)
        fail(0, "shifter --help lists the options", "option '--%s' takes no value: '%s'",
             options[option].name, word);
    return option;
}

static _Noreturn void print(const char *text)
{
    if (fputs(text, stdout) == EOF || fflush(stdout) == EOF)
        fail(errno, NULL, "cannot write to standard output");
    exit(EXIT_SUCCESS);
}

static void apply(struct job *job, enum option option, const char *value)
{
    if (options[option].value == REQUIRED && (value == NULL || value[0] == '\0'))
        fail(0, "usage: " USAGE, "option '--%s' needs a value", options[option].name);
    switch (option) {
    case IMAGE:
        job->image = value;
        break;
    case STORE:
        job->store = value;
        break;
    case WORKDIR:
        if (value != NULL && value[0] != '/')
            fail(0, "write --workdir=/DIRECTORY", "not an absolute path: '%s'", value);
        job->workdir_asked = 1;
        job->workdir = value;
        break;
    case HELP:
        print(help);
    case VERSION_SHOWN:
        print("shifter " VERSION "\n");
    case OPTIONS:
        break;
    }
}

void args_read(struct job *job, char **argv)
{
    memset(job, 0, sizeof *job);
    if (argv[0] != NULL)
        argv++;
    for (; *argv != NULL && (*argv)[0] == '-' && (*argv)[1] != '\0'; argv++) {
        const char *value;
        enum option option;

        if (strcmp(*argv, "--") == 0) {
            argv++;
            break;
        }
        option = recognise(*argv, &value);
        if (options[option].value == REQUIRED && value == NULL && argv[1] != NULL)
            value = *++argv;
        apply(job, option, value);
    }
    job->command = argv;
    if (job->image == NULL)
        job->image = getenv("SHIFTER_IMAGE");
    if (job->image == NULL || job->image[0] == '\0')
        fail(0, "shifter --image=NAME:TAG COMMAND, or set SHIFTER_IMAGE", "no image was named");
}

static const char *set(const char *name)
{
    const char *value = getenv(name);

    return value != NULL && value[0] != '\0' ? value : NULL;
}

void args_store(const struct job *job, char store[PATH_MAX])
{
    const char *found = job->store, *data = set("XDG_DATA_HOME");
    char cwd[PATH_MAX];

    if (found == NULL)
        found = set("SHIFTER_STORE");
    if (found == NULL)
        found = config_store();
    if (found != NULL) {
        if (found[0] == '/') {
            path_format(store, "%s", found);
        } else {
            if (getcwd(cwd, sizeof cwd) == NULL)
                fail(errno, NULL, "cannot tell where the store '%s' is", found);
            path_format(store, "%s/%s", cwd, found);
        }
    } else if (data != NULL && data[0] == '/') {
        /* The specification of these variables says that relative ones are void. */
        path_format(store, "%s/shifter-lite", data);
    } else if (set("HOME") != NULL) {
        path_format(store, "%s/.local/share/shifter-lite", set("HOME"));
    } else {
        fail(0, "set SHIFTER_STORE or --store", "no store was named, and HOME is not set");
    }
    if (store[0] != '/')
        fail(0, "set SHIFTER_STORE or --store", "not an absolute path: '%s'", store);
}
