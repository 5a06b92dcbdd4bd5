/* Every name of spool/vectors/references has the key that stands beside it. */
#include "../reference.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check(const char *text, const char *wanted)
{
    char key[REFERENCE_MAX], again[REFERENCE_MAX];
    const char *got = reference_normalise(text, key) == 0 ? key : "!";

    if (strcmp(got, wanted) != 0) {
        fprintf(stderr, "'%s' is '%s', not '%s'\n", text, got, wanted);
        return 1;
    }
    if (strcmp(got, "!") != 0 &&
        (reference_normalise(key, again) != 0 || strcmp(key, again) != 0)) {
        fprintf(stderr, "'%s' is not its own key\n", key);
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    FILE *vectors = argc > 1 ? fopen(argv[1], "r") : stdin;
    char line[4096];
    int wrong = 0, count = 0;

    if (vectors == NULL) {
        perror(argv[1]);
        return EXIT_FAILURE;
    }
    while (fgets(line, sizeof line, vectors) != NULL) {
        char *tab = strchr(line, '\t');

        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '#' || tab == NULL)
            continue;
        *tab = '\0';
        wrong += check(line, tab + 1);
        count++;
    }
    printf("%d names, %d wrong\n", count, wrong);
    return wrong > 0 || count == 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
