/* Every vector of spool/vectors/platforms gives each machine the image that stands beside it. */
#include "../names.h"
#include "check.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static const char *const words[] = {
    [NAME_ABSENT] = "absent",   [NAME_ELSEWHERE] = "elsewhere",   [NAME_DAMAGED] = "damaged",
    [NAME_NEWER] = "newer",     [NAME_UNREADABLE] = "unreadable",
};

/* What is found is found again in what the node remembers. */
static int is_read_again(const struct machine *machine, const char *key, const struct value *value,
                         const struct record *record)
{
    struct record again;

    return names_read(machine, key, value, &again) && strcmp(again.id, record->id) == 0;
}

static int check(const char *path, const char *key, const struct machine *machine, const char *wanted)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct value value;
    struct record record;
    const char *why;
    enum name_answer answer;
    char first[2] = "";

    CHECK(fd >= 0);
    answer = names_find(fd, machine, key, &value, &record, &why);
    close(fd);
    if (answer == NAME_FOUND) {
        CHECK(is_read_again(machine, key, &value, &record));
        first[0] = record.id[0];
    }
    if (strcmp(answer == NAME_FOUND ? first : words[answer], wanted) == 0)
        return 0;
    fprintf(stderr, "%s: '%s' is %s for %s, not %s\n", path, key,
            answer == NAME_FOUND ? first : words[answer], machine->architecture, wanted);
    return 1;
}

int main(int argc, char **argv)
{
    char path[4096], line[4096], file[64], key[512], architecture[32], wanted[32];
    int level, count = 0, wrong = 0;
    FILE *answers;

    CHECK(argc == 2);
    snprintf(path, sizeof path, "%s/answers.tsv", argv[1]);
    answers = fopen(path, "r");
    CHECK(answers != NULL);
    while (fgets(line, sizeof line, answers) != NULL) {
        struct machine machine = {architecture, 0};

        if (line[0] == '#')
            continue;
        CHECK(sscanf(line, "%63s %511s %31s %d %31s", file, key, architecture, &level, wanted) == 5);
        machine.level = level;
        snprintf(path, sizeof path, "%s/%s.cdb", argv[1], file);
        wrong += check(path, key, &machine, wanted);
        count++;
    }
    printf("%d names on machines, %d wrong\n", count, wrong);
    return wrong > 0 || count == 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
