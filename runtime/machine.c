#include "machine.h"

#include "files.h"

#include <stdio.h>
#include <string.h>

#if defined __x86_64__
#define ARCHITECTURE "amd64"
#elif defined __i386__
#define ARCHITECTURE "386"
#elif defined __aarch64__
#define ARCHITECTURE "arm64"
#elif defined __arm__
#define ARCHITECTURE "arm"
#elif defined __powerpc64__ && defined __LITTLE_ENDIAN__
#define ARCHITECTURE "ppc64le"
#elif defined __riscv && __riscv_xlen == 64
#define ARCHITECTURE "riscv64"
#elif defined __s390x__
#define ARCHITECTURE "s390x"
#elif defined __loongarch64
#define ARCHITECTURE "loong64"
#else
#define ARCHITECTURE ""
#endif

/* The processor's level of x86-64.  Of each, what distinguishes processors that were made; the kernel must save their state,
   which the compiler's question includes. */
static int level(void)
{
#if defined __x86_64__
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("sse4.2") || !__builtin_cpu_supports("popcnt"))
        return 1;
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi2") ||
        !__builtin_cpu_supports("fma"))
        return 2;
    if (!__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512cd") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return 3;
    return 4;
#else
    return 0;
#endif
}

struct machine machine_own(void)
{
    return (struct machine){ARCHITECTURE, 0};
}

/* Whether the first word of `text`, up to '/', is `word`; then `rest` is what follows. */
static int begins(const char *text, const char *word, const char **rest)
{
    size_t length = strlen(word);

    if (strncmp(text, word, length) != 0 || (text[length] != '/' && text[length] != '\0'))
        return 0;
    *rest = text + length + (text[length] == '/');
    return 1;
}

int machine_runs(const struct machine *machine, const char *platform)
{
    const char *rest = platform, *own = machine->architecture;

    if (platform == NULL || own[0] == '\0')
        return 1;
    if (!begins(rest, "linux", &rest))
        return 0;
    if (strcmp(own, "amd64") == 0 && begins(rest, "386", &rest))
        return 1;
    if (strcmp(own, "arm64") == 0 && begins(rest, "arm", &rest))
        return 1;
    if (!begins(rest, own, &rest))
        return 0;
    /* Variants of others are not for us to tell apart.  To ask costs much in a virtual machine. */
    return strcmp(own, "amd64") != 0 || rest[0] != 'v' ||
           rest[1] - '0' <= (machine->level > 0 ? machine->level : level());
}

char *machine_key(const struct machine *machine, const char *name, size_t *length)
{
    size_t room = sizeof "-machine::" + strlen(machine->architecture) + strlen(name);
    char *key = must_allocate(1, room);

    *length = room - 1;
    /* The first byte is the NUL that users cannot write. */
    snprintf(key + 1, room - 1, "machine:%s:%s", machine->architecture, name);
    return key;
}
