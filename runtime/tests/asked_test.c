/* What the readers of udiRoot.conf, volumes, --env-file and the environment claim of themselves.
   With the word "keys": print the keys of udiRoot.conf, and why they have no effect.  "rules": the
   keys, and what their values must be.  "files": read texts from standard input, a NUL behind each,
   and print of each its line, fact and advice, or 0, imagePath and nothing, with NULs behind. */
#include "../config.h"
#include "../envfile.h"
#include "../environment.h"
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct complaint why;

static struct config *config(const char *text)
{
    static struct config read;
    char *copy = strdup(text);

    memset(&read, 0, sizeof read);
    memset(&why, 0, sizeof why);
    return copy != NULL && config_parse(&read, copy, &why) == 0 ? &read : NULL;
}

static struct volume *volume(const char *text, enum volume_asker asker)
{
    static struct volume read;
    char *copy = strdup(text);

    memset(&why, 0, sizeof why);
    return copy != NULL && volume_parse(&read, copy, asker, &why) == 0 ? &read : NULL;
}

static void lines_are_joined_and_comments_are_not(void)
{
    struct config *read = config("# x\\\nimagePath = /a \\\n\n  # y\nsiteFs=/b;\\\n /c:/d ; \n"
                                 "siteFs=/e:/f:ro");

    CHECK(read != NULL && strcmp(read->store, "/a") == 0);
    CHECK(read->fs.count == 3 && strcmp(read->fs.list[1].to, "/d") == 0);
    CHECK(read->fs.list[0].line == 5 && read->fs.list[2].line == 7);
    CHECK(read->fs.list[2].read_only && !read->fs.list[1].read_only);
}

static void an_unknown_key_names_its_line_and_the_nearest(void)
{
    CHECK(config("imagePath=/a\n\nsitefs=/x") == NULL);
    CHECK(why.line == 3 && strstr(why.fact, "'sitefs'") != NULL);
    CHECK(strcmp(why.advice, "did you mean 'siteFs'?") == 0);
    CHECK(config("module_mpi_copypth=/x") == NULL);
    CHECK(strcmp(why.advice, "did you mean 'module_mpi_copyPath'?") == 0);
    CHECK(strcmp(config("module_mpi_copypath=/x")->modules.list[0].copy_path, "/x") == 0);
    CHECK(config("nonsense") == NULL && config("=x") == NULL && config("module_x=1") == NULL);
    CHECK(config("module__siteEnv=A=1") == NULL && config("module_a/b_siteEnv=A=1") == NULL);
}

static void values_are_checked(void)
{
    CHECK(config("populateEtcDynamically=yes") == NULL && config("maxGroupCount=-1") == NULL);
    CHECK(config("etcPath=relative") == NULL && config("etcPath=/a/../b") == NULL);
    CHECK(config("siteEnv=A=1 B") == NULL && config("siteEnvUnset=A =1") == NULL);
    CHECK(config("mountPropagationStyle=shared") == NULL);
    CHECK(config("perNodeCacheSizeLimit=much") == NULL && config("siteFs=/a:/etc") == NULL);
    CHECK(config("defaultImageType=local") == NULL);
}

static void modules_collect_their_keys(void)
{
    struct config *read = config("module_mpi_siteEnv=A=1 B=\nmodule_mpi_siteEnvPrepend=P=/x\n"
                                 "module_gpu_conflict=mpi, x\nmodule_mpi_requires=libmpi.so.12\n"
                                 "module_off_enabled=0\n");
    const struct module **chosen;
    char both[] = "gpu,mpi", one[] = " mpi ", off[] = "off", none[] = "NONE";

    CHECK(read != NULL && read->modules.count == 3 && read->modules.list[0].env.set.count == 2);
    CHECK(strcmp(read->modules.list[0].requires.list[0], "libmpi.so.12") == 0);
    CHECK(modules_choose(&read->modules, one, &chosen, &why) == 0);
    CHECK(strcmp(chosen[0]->name, "mpi") == 0 && chosen[1] == NULL);
    CHECK(modules_choose(&read->modules, both, &chosen, &why) < 0);
    CHECK(strstr(why.fact, "conflicting modules 'mpi' and 'gpu'") != NULL);
    CHECK(modules_choose(&read->modules, off, &chosen, &why) < 0);
    CHECK(strcmp(why.advice, "there are: mpi, gpu") == 0);
    CHECK(modules_choose(&read->modules, none, &chosen, &why) == 0 && chosen[0] == NULL);
}

static void paths_become_normal(void)
{
    struct volume *read = volume(" //a/./b///c/:/x/ ", ASKED_BY_USER);

    CHECK(read != NULL && strcmp(read->from, "/a/b/c") == 0 && strcmp(read->to, "/x") == 0);
    read = volume("/a..b/...:/c d", ASKED_BY_USER);
    CHECK(read != NULL && strcmp(read->from, "/a..b/...") == 0 && strcmp(read->to, "/c d") == 0);
    CHECK(volume("/a/../b:/c", ASKED_BY_USER) == NULL && volume("a:/c", ASKED_BY_USER) == NULL);
    CHECK(volume("/a:/b/..", ASKED_BY_USER) == NULL && volume("", ASKED_BY_USER) == NULL);
}

static void rules_of_targets_go_by_components(void)
{
    const char *const allowed[] = {"/variable", "/etc2", "/process", "/system", "/device",
                                   "/var/tmp",  "/optional", "/etc/x", "/opt/udiImages"};
    const char *const refused[] = {"/", "/etc", "/var", "/opt", "/proc", "/proc/x", "/sys", "/dev/",
                                   "//dev//shm", "/etc/passwd", "/etc/hosts", "/opt/udiImage/x"};
    char text[256];

    for (size_t at = 0; at < sizeof allowed / sizeof allowed[0]; at++) {
        snprintf(text, sizeof text, "/a:%s", allowed[at]);
        CHECK(volume(text, ASKED_BY_USER) != NULL);
    }
    for (size_t at = 0; at < sizeof refused / sizeof refused[0]; at++) {
        snprintf(text, sizeof text, "/a:%s", refused[at]);
        CHECK(volume(text, ASKED_BY_USER) == NULL);
    }
}

static void flags_are_those_of_who_asks(void)
{
    CHECK(volume("/a:/b:ro", ASKED_BY_USER)->read_only);
    CHECK(volume("/a:/b:rw", ASKED_BY_USER) == NULL && volume("/a:/b:rec", ASKED_BY_USER) == NULL);
    CHECK(volume("/a:/b:slave", ASKED_BY_USER) == NULL);
    CHECK(volume("/a:/b:rec:slave,ro", ASKED_BY_SITE)->slave);
    CHECK(volume("/a:slave", ASKED_BY_SITE)->slave);
    CHECK(volume("/a:/b:slave:private", ASKED_BY_SITE) == NULL);
    CHECK(volume("/a:/b:perNodeCache=size=2G,fs=xfs,bs=4k,method=loop", ASKED_BY_USER)->cache_size ==
          2ull << 30);
    CHECK(volume("/a:/b:perNodeCache=size=1:fs=xfs", ASKED_BY_USER)->cache_size == 1);
    CHECK(volume("/a:/b:perNodeCache=fs=xfs", ASKED_BY_USER) == NULL);
    CHECK(volume("/a:/b:perNodeCache=size=0", ASKED_BY_USER) == NULL);
    CHECK(volume("/a:/b:size=1G", ASKED_BY_USER) == NULL);
    CHECK(volume("/a:/b:perNodeCache=size=99999999999999T", ASKED_BY_USER) == NULL);
}

static void flags_may_be_written_in_capitals_and_left_out(void)
{
    CHECK(volume("/a:/b:RO", ASKED_BY_USER)->read_only && volume("/a:/b:rO,", ASKED_BY_USER)->read_only);
    CHECK(volume("/a:/b: ro ", ASKED_BY_USER)->read_only && volume("/a:/b::ro", ASKED_BY_USER)->read_only);
    CHECK(volume("/a:/b:", ASKED_BY_USER) != NULL && volume("/a:/b::,", ASKED_BY_USER) != NULL);
    CHECK(volume("/a:/b:SLAVE:Rec", ASKED_BY_SITE)->slave);
    CHECK(volume("/a:/b:PERNODECACHE=Size=1k,FS=XFS", ASKED_BY_USER)->cache_size == 1024);
    CHECK(strcmp(volume("/a:/b:perNodeCache=size=1,fs=Xfs", ASKED_BY_USER)->cache_type, "xfs") == 0);
    CHECK(volume("/a:/b:ro:ro", ASKED_BY_USER) == NULL && volume("/a:/b:ro,RO", ASKED_BY_SITE) == NULL);
    CHECK(volume("/a:/b:rec:rec", ASKED_BY_SITE) == NULL);
    CHECK(volume("/a:/b:perNodeCache=size=1G,size=2G", ASKED_BY_USER) == NULL);
    CHECK(volume("/a:/b:perNodeCache=size=1G:ro", ASKED_BY_SITE)->read_only);
    CHECK(volume("/a:/b:perNodeCache=size=1G:ro", ASKED_BY_USER) == NULL);
}

static void a_user_says_where_and_a_site_need_not(void)
{
    CHECK(volume("/a", ASKED_BY_USER) == NULL && volume("/a:", ASKED_BY_USER) == NULL);
    CHECK(volume("/a:ro", ASKED_BY_USER) == NULL && volume("/a::ro", ASKED_BY_USER) == NULL);
    CHECK(strcmp(volume("/a", ASKED_BY_SITE)->to, "/a") == 0 && volume("/a:", ASKED_BY_SITE) != NULL);
    CHECK(volume("/a:ro", ASKED_BY_SITE)->read_only && volume("/a::ro", ASKED_BY_SITE)->read_only);
    CHECK(volume("/a /b", ASKED_BY_SITE) == NULL && strstr(why.advice, "';'") != NULL);
    CHECK(volume("/a:/a /b:/b", ASKED_BY_SITE) == NULL && strstr(why.advice, "';'") != NULL);
    CHECK(volume("/a:/a /b:/b", ASKED_BY_USER) == NULL && strstr(why.advice, "';'") != NULL);
    CHECK(volume("/a b:/c d", ASKED_BY_SITE) != NULL);
}

/* How a list is read: FROM>TO of each volume; or "wrong". */
static const char *list(const char *text)
{
    static char shown[256];
    struct volumes read = {NULL, 0, 0};
    char *copy = strdup(text), *to = shown;

    CHECK(copy != NULL);
    shown[0] = '\0';
    if (volumes_parse(&read, copy, ASKED_BY_USER, &why) < 0)
        return "wrong";
    for (size_t at = 0; at < read.count; at++)
        to += sprintf(to, "%s>%s%s ", read.list[at].from, read.list[at].to,
                      read.list[at].read_only ? "!" : "");
    return shown;
}

static void quotes_of_a_shell_are_dropped(void)
{
    CHECK(strcmp(list("\"/a:/b\""), "/a>/b ") == 0 && strcmp(list(" '/a:/b:ro' "), "/a>/b! ") == 0);
    CHECK(strcmp(list("\"/a\":\"/b\":ro"), "/a>/b! ") == 0);
    CHECK(strcmp(list("\"/a:/b\":ro"), "/a>/b! ") == 0);
    CHECK(strcmp(list("'/a:/b;/c:/d'"), "/a>/b /c>/d ") == 0);
    CHECK(strcmp(list("'/a:/b' ; \"/c:/d\""), "/a>/b /c>/d ") == 0);
    CHECK(strcmp(list("/a'b\"c:/d'"), "/a'b\"c>/d' ") == 0);
    CHECK(strcmp(list(";;/a:/b; ;"), "/a>/b ") == 0 && strcmp(list("''"), "") == 0);
    CHECK(strcmp(list("\"/a:/b"), "wrong") == 0 && strcmp(list("'"), "wrong") == 0);
}

static uint64_t size(const char *text)
{
    uint64_t bytes;

    return size_parse(text, &bytes) == 0 ? bytes : 0;
}

static void sizes_are_shifters(void)
{
    static const char *const wrong[] = {"", "K", ".", ".K", "0", "0.1B", "1X", "1KK", "1BB", "1KiB",
                                        "-1", "+1", " 1", "1 K", "1e3", "0x10", "1.2.3", "1,5G", "8E",
                                        "9223372036854775808", "99999999999999T", "1..5", "inf", "1P1"};

    CHECK(size("5") == 5 && size("5B") == 5 && size("7b") == 7 && size("5k") == 5 << 10);
    CHECK(size("500K") == 512000 && size("500KB") == 512000 && size("500kb") == 512000);
    CHECK(size("3M") == 3 << 20 && size("2g") == 2ull << 30 && size("4TB") == 4ull << 40);
    CHECK(size("1P") == 1ull << 50 && size("1Eb") == 1ull << 60 && size("1.5G") == 1610612736);
    CHECK(size("7.999E") < 8ull << 60 && size("7.5E") == 15ull << 59);
    CHECK(size("0.5K") == 512 && size(".5k") == 512 && size("1.K") == 1024 && size("1.0001B") == 1);
    CHECK(size("0.001K") == 1 && size("0.1G") == 107374182 && size("0.000000000000000001E") == 1);
    for (size_t at = 0; at < sizeof wrong / sizeof wrong[0]; at++)
        CHECK(size(wrong[at]) == 0);
    CHECK(config("perNodeCacheSizeLimit=1.5tb")->cache.size_limit == 3ull << 39);
    CHECK(config("perNodeCacheSizeLimit=0")->cache.size_limit == 0);
    CHECK(volume("/a:/b:perNodeCache=size=1X", ASKED_BY_USER) == NULL);
    CHECK(strcmp(why.fact, "no size: '1X'") == 0);
}

static void an_env_file_is_taken_literally(void)
{
    struct words read = {NULL, 0, 0};
    char good[] = "# c\n\n  A=1 2  \r\nB=\"x\"\nC=\nD=a=b #c", bad[] = "A=1\nBAD\n", none[] = "=x";

    CHECK(envfile_parse(&read, good, &why) == 0 && read.count == 4);
    CHECK(strcmp(read.list[0], "A=1 2") == 0 && strcmp(read.list[1], "B=\"x\"") == 0);
    CHECK(strcmp(read.list[2], "C=") == 0 && strcmp(read.list[3], "D=a=b #c") == 0);
    CHECK(envfile_parse(&read, bad, &why) < 0 && why.line == 2);
    CHECK(envfile_parse(&read, none, &why) < 0 && why.line == 1);
}

static void the_later_goes_over_the_earlier(void)
{
    char *caller[] = {(char *)"A=1", (char *)"HOME=/home/ann", (char *)"B=2", (char *)"LD_PRELOAD=x",
                      (char *)"TMPDIR=/x", (char *)"LDX=1", NULL};
    const char *env[] = {"B=3", "C=4", "HOME=/root", "nonsense", "=x", "A", "C=5", "E=", NULL};
    struct record record = {.id = "f00", .env = {env, 8, 9}};
    struct job job = {.request = "debian:12"};
    struct config *site = config("siteEnv=S=1\nsiteEnvAppend=B=9 N=1\nsiteEnvPrepend=B=0 E=1\n"
                                 "siteEnvUnset=A=x\n");
    const struct module *none[] = {NULL};
    const char *const wanted[] = {"HOME=/home/ann", "B=0:3:9", "LDX=1",
                                  "SHIFTER_IMAGEREQUEST=debian:12", "SHIFTER_IMAGE=f00", "C=5",
                                  "E=1", "S=1", "N=1"};
    size_t count = sizeof wanted / sizeof wanted[0];
    struct words files = {NULL, 0, 0};
    struct environment made;

    words_add(&files, "C=6");
    CHECK(site != NULL);
    words_add(&job.env, "C=5");
    environment_build(&made, &(struct environment_sources){caller, &job, &record, &files, none, site});
    CHECK(made.count == count + 1 && made.list[made.count] == NULL);
    for (size_t at = 0; at < count; at++)
        CHECK(strcmp(made.list[at], wanted[at]) == 0);
    CHECK(strncmp(made.list[count], "PATH=/usr/local/sbin:", 21) == 0);
    CHECK(strcmp(made.by[1], "site") == 0 && strcmp(made.by[5], "--env") == 0);
}

/* What becomes of a caller's environment with the edits of a site. */
static char **built(char *const *caller, const char *site, struct environment *made)
{
    static const struct module *none[] = {NULL};
    struct record record = {.id = "f00"};
    struct job job = {.request = "x"};
    struct words files = {NULL, 0, 0};
    struct config *read = config(site);

    CHECK(read != NULL);
    environment_build(made, &(struct environment_sources){caller, &job, &record, &files, none, read});
    return made->list;
}

static int times(char **list, const char *entry)
{
    int found = 0;

    for (; *list != NULL; list++)
        found += strcmp(*list, entry) == 0;
    return found;
}

static void of_a_variable_that_stands_twice_the_first_counts(void)
{
    char *caller[] = {(char *)"X=1", (char *)"odd", (char *)"Y=1", (char *)"X=2", (char *)"X=3",
                      (char *)"odd", (char *)"Y=2", (char *)"=z", NULL};
    struct environment made;
    char **list = built(caller, "", &made);

    CHECK(made.count == 8 && times(list, "X=1") == 1 && times(list, "Y=1") == 1);
    CHECK(times(list, "odd") == 2 && times(list, "=z") == 1 && list[8] == NULL);
    list = built(caller, "siteEnv=X=9 N=1\nsiteEnvUnset=Y N ABSENT\nsiteEnvAppend=Y=5", &made);
    CHECK(made.count == 7 && times(list, "X=9") == 1 && list[7] == NULL);
    list = built(caller, "siteEnvAppend=X=5", &made);
    CHECK(made.count == 8 && times(list, "X=1:5") == 1);
}

static void an_environment_may_be_large(void)
{
    enum { MANY = 20000 };
    static char text[MANY][32];
    static char *caller[2 * MANY + 1];
    struct environment made;
    char **list;

    for (int at = 0; at < MANY; at++) {
        snprintf(text[at], sizeof text[at], "V%d=%d", at, at);
        caller[at] = caller[MANY + at] = text[at];
    }
    list = built(caller, "siteEnvUnset=V7 V19999\nsiteEnv=V8=x\n", &made);
    CHECK(made.count == MANY - 2 + 3 && times(list, "V8=x") == 1 && times(list, "V19998=19998") == 1);
    CHECK(times(list, "V7=7") == 0 && times(list, "V19999=19999") == 0);
    CHECK(strcmp(made.by[0], "caller") == 0 && strcmp(made.by[7], "site") == 0);
}

static void print_keys(const char *before, const struct key *keys)
{
    for (; keys->name != NULL; keys++)
        printf("%s%s\t%s\n", before, keys->name, keys->why != NULL ? keys->why : "");
}

static const char *rule_of(enum key_kind kind)
{
    switch (kind) {
    case KEY_FS:
        return "volumes";
    case KEY_ENV:
    case KEY_ENV_APPEND:
    case KEY_ENV_PREPEND:
        return "variables";
    case KEY_ENV_UNSET:
        return "names";
    case KEY_DEFAULT_IMAGE_TYPE:
        return "type";
    case KEY_OPT_UDI_IMAGE:
    case KEY_ETC_PATH:
    case KEY_CACHE_PATH:
    case KEY_COPY_PATH:
    case KEY_USERHOOK:
    case KEY_ROOTHOOK:
    case KEY_PRE_HOOK:
    case KEY_POST_HOOK:
        return "path";
    case KEY_POPULATE_ETC:
    case KEY_LENIENT_WORKDIR:
    case KEY_ENABLED:
        return "switch";
    case KEY_MAX_GROUP_COUNT:
        return "count";
    case KEY_PROPAGATION:
        return "propagation";
    case KEY_CACHE_SIZE_LIMIT:
        return "size";
    default:
        return "text";
    }
}

static void print_rules(const char *before, const struct key *keys)
{
    for (; keys->name != NULL; keys++)
        printf("%s%s\t%s\n", before, keys->name, rule_of(keys->kind));
}

static void print_files(void)
{
    char *text = NULL;
    size_t size = 0;

    while (getdelim(&text, &size, '\0', stdin) >= 0) {
        struct config *read = config(text);
        const char *store = read != NULL && read->store != NULL ? read->store : "";

        if (read != NULL)
            printf("0%c%s%c%c", '\0', store, '\0', '\0');
        else
            printf("%u%c%s%c%s%c", why.line, '\0', why.fact, '\0', why.advice, '\0');
    }
    free(text);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "keys") == 0) {
        print_keys("", file_keys);
        print_keys("module_NAME_", module_keys);
        return EXIT_SUCCESS;
    }
    if (argc == 2 && strcmp(argv[1], "rules") == 0) {
        print_rules("", file_keys);
        print_rules("module_NAME_", module_keys);
        return EXIT_SUCCESS;
    }
    if (argc == 2 && strcmp(argv[1], "files") == 0) {
        print_files();
        return EXIT_SUCCESS;
    }
    lines_are_joined_and_comments_are_not();
    an_unknown_key_names_its_line_and_the_nearest();
    values_are_checked();
    modules_collect_their_keys();
    paths_become_normal();
    rules_of_targets_go_by_components();
    flags_are_those_of_who_asks();
    flags_may_be_written_in_capitals_and_left_out();
    a_user_says_where_and_a_site_need_not();
    quotes_of_a_shell_are_dropped();
    sizes_are_shifters();
    an_env_file_is_taken_literally();
    the_later_goes_over_the_earlier();
    of_a_variable_that_stands_twice_the_first_counts();
    an_environment_may_be_large();
    puts("asked: all claims hold");
    return EXIT_SUCCESS;
}
