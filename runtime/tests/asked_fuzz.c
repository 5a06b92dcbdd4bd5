/* Mutate udiRoot.conf, volumes and files of variables at random: nothing is read out of bounds
   (ASan, UBSan watch), and what is taken keeps the rules.
   libfuzzer.c gives the same readers to libFuzzer. */
#include "parsers.h"

/* An exact copy, so that ASan sees every byte too many. */
static void try_text(unsigned which, const char *bytes, size_t length)
{
    char *text = malloc(length + 1);

    CHECK(text != NULL);
    memcpy(text, bytes, length);
    text[length] = '\0';
    switch (which % 3) {
    case 0:
        try_config(text, length);
        break;
    case 1:
        try_volume(text, length);
        break;
    default:
        try_env_file(text, length);
    }
    free(text);
}

static const char *const seeds[] = {
    "# c\nimagePath=/a\\\n/b\nsiteFs=/a:/b:ro;/c:/d:perNodeCache=size=1G,fs=xfs ; /e:slave\n"
    "siteEnvPrepend=PATH=/x A=\nsiteEnvUnset=B\nmaxGroupCount=3\netcPath=/e\n",
    "module_mpi_siteEnv=A=1\nmodule_mpi_conflict=a, b\nmodule_a_copyPath=/x/y\nmodule_a_enabled=0\n"
    "module_a_siteFs=/a/b:/c:rec\nmodule_x_requires=libc.so\nmodule_x_roothook=/x\n",
    "/a:/b;/c/./d//e/:/f:ro;/g:/h:perNodeCache=size=10M,bs=4K,method=loop;/etc:/x",
    "# c\nA=1\n  B=\"x y\"  \n\nC=\nD=e=f\n",
};
static const char alphabet[] = "/:;,=.#\\ \n\t_-0123456789KMGTPEBRaersov\"'";
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
        try_text((unsigned)random_below(3), text, length);
    }
    printf("%ld mutations\n", count);
    return EXIT_SUCCESS;
}
