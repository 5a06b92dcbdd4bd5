/* Which launches can share a container: those whose plans have equal keys. */
#include "../plan.h"
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[] = "/tmp/plan_test.XXXXXX";

/* The key of a launch in `cwd`, below the directory, with one volume or NULL. */
static char *key(const char *text, const char *cwd, const char *volume, unsigned writable)
{
    struct complaint why = {0, "", ""};
    struct config config;
    struct job job;
    struct plan plan;
    char *bytes = NULL, *copy = strdup(text), there[256];
    size_t length;
    FILE *out = open_memstream(&bytes, &length);

    memset(&config, 0, sizeof config);
    memset(&job, 0, sizeof job);
    CHECK(out != NULL && copy != NULL && config_parse(&config, copy, &why) == 0);
    snprintf(there, sizeof there, "%s/%s", directory, cwd);
    CHECK(chdir(there) == 0);
    if (volume != NULL)
        words_add(&job.volumes, volume);
    job.writable = writable;
    plan_make(&plan, &job, &config);
    plan_key(&plan, out);
    CHECK(fclose(out) == 0);
    return bytes;
}

static int same(const char *one, const char *other)
{
    return strcmp(one, other) == 0;
}

static char *shown(const char *format)
{
    char *text = malloc(256);

    CHECK(text != NULL);
    snprintf(text, 256, format, directory, directory);
    return text;
}

static void a_directory_that_is_shown_anyway_does_not_count(void)
{
    char *site = shown("siteFs=%s"), *elsewhere = shown("siteFs=%s:/other");
    char *volume = shown("%s:%s");

    CHECK(same(key(site, "a", NULL, 0), key(site, "b", NULL, 0)));
    CHECK(same(key("", "a", volume, 0), key("", "b", volume, 0)));
    CHECK(same(key("", ".", NULL, 0), key("", "a", NULL, 0)));
    setenv("HOME", directory, 1);
    CHECK(same(key("", "a", NULL, 0), key("", "b", NULL, 0)));
    setenv("HOME", "/absent", 1);
    /* All of that because /tmp is shown; what is shown elsewhere is not. */
    CHECK(chdir("/usr/bin") == 0);
    CHECK(!same(key("", "../../usr/bin", NULL, 0), key("", "../../usr", NULL, 0)));
    CHECK(!same(key(elsewhere, "../../usr/bin", NULL, 0), key("", "../../usr/bin", NULL, 0)));
}

static void what_is_mounted_counts(void)
{
    char *plain = key("", "a", NULL, 0);

    CHECK(same(plain, key("siteEnv=A=1\n# x\n", "a", NULL, 0)));
    CHECK(same(plain, key("module_x_siteFs=/usr:/y", "a", NULL, 0)));
    CHECK(!same(plain, key("", "a", "/usr:/x", 0)));
    CHECK(!same(key("", "a", "/usr:/x", 0), key("", "a", "/usr:/x:ro", 0)));
    CHECK(!same(key("", "a", "/usr:/x", 0), key("", "a", "/usr:/y", 0)));
    CHECK(!same(key("", "a", "/usr:/x", 0), key("siteFs=/usr:/x", "a", NULL, 0)));
    CHECK(!same(plain, key("defaultModules=x\nmodule_x_siteFs=/usr:/y", "a", NULL, 0)));
    CHECK(!same(plain, key("", "a", NULL, 50)));
    CHECK(!same(plain, key("maxGroupCount=3", "a", NULL, 0)));
    CHECK(!same(plain, key("etcPath=/x", "a", NULL, 0)));
    CHECK(same(key("", "a", "/x:/c:perNodeCache=size=1G", 0),
               key("", "a", "/y:/c:perNodeCache=size=1G", 0)));
    CHECK(!same(key("", "a", "/x:/c:perNodeCache=size=1G", 0),
                key("", "a", "/x:/c:perNodeCache=size=2G", 0)));
}

static void no_name_makes_two_mounts_of_one(void)
{
    CHECK(!same(key("", "a", "/a,4:/b", 0), key("", "a", "/a:/b", 0)));
    CHECK(!same(key("", "a", "/a\n/b:/c", 0), key("", "a", "/a:/c", 0)));
}

int main(void)
{
    CHECK(mkdtemp(directory) != NULL && chdir(directory) == 0);
    CHECK(mkdir("a", 0700) == 0 && mkdir("b", 0700) == 0);
    setenv("HOME", "/absent", 1);
    setenv("SHIFTER_STORE", "/store", 1);
    a_directory_that_is_shown_anyway_does_not_count();
    what_is_mounted_counts();
    no_name_makes_two_mounts_of_one();
    CHECK(chdir(directory) == 0 && rmdir("a") == 0 && rmdir("b") == 0 && rmdir(directory) == 0);
    puts("plan: all claims hold");
    return EXIT_SUCCESS;
}
