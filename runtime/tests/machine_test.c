/* What machines run, and the key of what they are given. */
#include "../machine.h"
#include "check.h"

#include <string.h>

static int runs(const char *architecture, int level, const char *platform)
{
    const struct machine machine = {architecture, level};

    return machine_runs(&machine, platform);
}

static void a_machine_runs_its_own(void)
{
    CHECK(runs("amd64", 1, "linux/amd64"));
    CHECK(runs("arm64", 0, "linux/arm64"));
    CHECK(runs("arm64", 0, "linux/arm64/v9"));
    CHECK(runs("riscv64", 0, "linux/riscv64"));
}

static void a_machine_runs_no_others(void)
{
    const char *const others[] = {"linux/arm64", "linux/arm/v7", "linux/amd64x", "linux/amd", "linux",
                                  "linux/", "linux/ppc64le", "windows/amd64", "amd64", "", "/"};

    for (size_t at = 0; at < sizeof others / sizeof others[0]; at++)
        CHECK(!runs("amd64", 4, others[at]));
    CHECK(!runs("arm64", 0, "linux/amd64"));
    CHECK(!runs("arm64", 0, "linux/386"));
    CHECK(!runs("arm", 0, "linux/arm64"));
    CHECK(!runs("386", 0, "linux/amd64"));
}

static void what_a_machine_runs_besides(void)
{
    CHECK(runs("amd64", 1, "linux/386"));
    CHECK(runs("arm64", 0, "linux/arm/v6"));
}

static void a_level_of_x86_64_is_needed(void)
{
    CHECK(runs("amd64", 3, "linux/amd64/v2"));
    CHECK(runs("amd64", 3, "linux/amd64/v3"));
    CHECK(!runs("amd64", 2, "linux/amd64/v3"));
    CHECK(!runs("amd64", 1, "linux/amd64/v2"));
}

static void what_is_not_known_is_thought_to_run(void)
{
    CHECK(runs("amd64", 1, NULL));
    CHECK(runs("", 0, "linux/amd64"));
}

static void the_key_begins_with_nul(void)
{
    const char wanted[] = "\0machine:arm64:docker.io/library/debian:12";
    const struct machine machine = {"arm64", 0};
    size_t length;
    char *key = machine_key(&machine, "docker.io/library/debian:12", &length);

    CHECK(length == sizeof wanted - 1 && memcmp(key, wanted, sizeof wanted) == 0);
    free(key);
}

static void the_own_machine_runs_what_it_is(void)
{
    const struct machine own = machine_own();
    char platform[64];

    snprintf(platform, sizeof platform, "linux/%s", own.architecture);
    CHECK(machine_runs(&own, platform));
}

int main(void)
{
    a_machine_runs_its_own();
    a_machine_runs_no_others();
    what_a_machine_runs_besides();
    a_level_of_x86_64_is_needed();
    what_is_not_known_is_thought_to_run();
    the_key_begins_with_nul();
    the_own_machine_runs_what_it_is();
    puts("machine: all claims hold");
    return 0;
}
