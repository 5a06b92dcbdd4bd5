/* Mutate udiRoot.conf, volumes and files of variables at random: nothing is read out of bounds
   (ASan, UBSan watch), and what is taken keeps the rules.  Built with LIBFUZZER it is an entry for
   libFuzzer instead; the first byte says which reader gets the rest. */
#include "../config.h"
#include "../envfile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(claim) \
    do { \
        if (!(claim)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #claim); \
            abort(); \
        } \
    } while (0)

static void release_edits(struct edits *edits)
{
    free(edits->set.list);
    free(edits->append.list);
    free(edits->prepend.list);
    free(edits->unset.list);
}

static void release(struct config *config)
{
    for (size_t at = 0; at < config->modules.count; at++) {
        struct module *module = &config->modules.list[at];

        release_edits(&module->env);
        free(module->fs.list);
        free(module->conflicts.list);
        free(module->requires.list);
    }
    free(config->modules.list);
    release_edits(&config->env);
    free(config->fs.list);
    free(config->users.list);
    free(config->cache.types.list);
}

static void check_path(const char *path)
{
    size_t length = strlen(path);

    CHECK(path[0] == '/' && strstr(path, "//") == NULL && strstr(path, "/./") == NULL);
    CHECK(strstr(path, "/../") == NULL && (length == 1 || path[length - 1] != '/'));
}

static void check_volumes(const struct volumes *volumes, enum volume_asker asker)
{
    for (size_t at = 0; at < volumes->count; at++) {
        const struct volume *volume = &volumes->list[at];

        check_path(volume->from);
        check_path(volume->to);
        CHECK(volume_forbidden(volume->to, asker) == NULL);
        CHECK(volume->cache == (volume->cache_size != 0));
    }
}

static void try_config(char *text)
{
    struct complaint why = {0, "", ""};
    struct config config;
    const struct module **chosen;
    char names[] = "a,mpi,x";

    memset(&config, 0, sizeof config);
    if (config_parse(&config, text, &why) == 0) {
        check_volumes(&config.fs, ASKED_BY_SITE);
        modules_choose(&config.modules, names, &chosen, &why);
        free(chosen);
    } else {
        CHECK(why.line > 0 && why.fact[0] != '\0');
    }
    release(&config);
}

static void try_volumes(char *text, enum volume_asker asker)
{
    struct complaint why = {0, "", ""};
    struct volumes volumes = {NULL, 0, 0};

    if (volumes_parse(&volumes, text, asker, &why) == 0)
        check_volumes(&volumes, asker);
    else
        CHECK(why.fact[0] != '\0' && why.advice[0] != '\0');
    free(volumes.list);
}

static void try_variables(char *text)
{
    struct complaint why = {0, "", ""};
    struct words words = {NULL, 0, 0};

    if (envfile_parse(&words, text, &why) == 0)
        for (size_t at = 0; at < words.count; at++)
            CHECK(strchr(words.list[at], '=') > words.list[at]);
    free(words.list);
}

/* An exact copy, so that ASan sees every byte too many. */
static void try_text(unsigned which, const char *bytes, size_t length)
{
    char *text = malloc(length + 1);

    CHECK(text != NULL);
    memcpy(text, bytes, length);
    text[length] = '\0';
    switch (which % 4) {
    case 0:
        try_config(text);
        break;
    case 1:
        try_volumes(text, ASKED_BY_USER);
        break;
    case 2:
        try_volumes(text, ASKED_BY_SITE);
        break;
    default:
        try_variables(text);
    }
    free(text);
}

#ifdef LIBFUZZER
int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t length);

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t length)
{
    if (length > 0)
        try_text(bytes[0], (const char *)bytes + 1, length - 1);
    return 0;
}
#else
static const char *const seeds[] = {
    "# c\nimagePath=/a\\\n/b\nsiteFs=/a:/b:ro;/c:/d:perNodeCache=size=1G,fs=xfs ; /e:slave\n"
    "siteEnvPrepend=PATH=/x A=\nsiteEnvUnset=B\nmaxGroupCount=3\netcPath=/e\n",
    "module_mpi_siteEnv=A=1\nmodule_mpi_conflict=a, b\nmodule_a_copyPath=/x/y\nmodule_a_enabled=0\n"
    "module_a_siteFs=/a/b:/c:rec\nmodule_x_requires=libc.so\nmodule_x_roothook=/x\n",
    "/a:/b;/c/./d//e/:/f:ro;/g:/h:perNodeCache=size=10M,bs=4K,method=loop;/etc:/x",
    "# c\nA=1\n  B=\"x y\"  \n\nC=\nD=e=f\n",
};
static const char alphabet[] = "/:;,=.#\\ \n\t_-0123456789KMGTaersov";
static unsigned long long state = 88172645463325252u;

static size_t random_below(size_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (size_t)((state >> 11) % limit);
}

static void mutate(char *text, size_t *length)
{
    size_t at = random_below(*length), more = random_below(*length - at) + 1;

    switch (random_below(5)) {
    case 0:
        text[at] = (char)random_below(256);
        break;
    case 1:
        memmove(text + at, text + at + more, *length - at - more);
        *length -= more;
        break;
    case 2:
        memmove(text + at + more, text + at, *length - at);
        *length += more;
        break;
    default:
        text[at] = alphabet[random_below(sizeof alphabet - 1)];
    }
}

int main(int argc, char **argv)
{
    long count = argc > 1 ? atol(argv[1]) : 1000000;

    if (argc > 2)
        state ^= strtoull(argv[2], NULL, 10) * 0x9E3779B97F4A7C15u;
    for (long at = 0; at < count; at++) {
        const char *seed = seeds[random_below(sizeof seeds / sizeof seeds[0])];
        size_t length = strlen(seed);
        char text[4096];

        memcpy(text, seed, length);
        for (size_t changes = 1 + random_below(8); changes > 0 && length > 0; changes--)
            if (length < sizeof text / 2)
                mutate(text, &length);
        try_text((unsigned)random_below(4), text, length);
    }
    printf("%ld mutations\n", count);
    return EXIT_SUCCESS;
}
#endif
