/* What the container's passwd and group say. */
#include "../accounts.h"
#include "../files.h"
#include "../identity.h"
#include "cdb_make.h"

#include <time.h>

static char host_passwd[] = "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000:Ann,,,:/home/ann:/bin/zsh\n";
static char host_group[] = "root:x:0:\nann:x:1000:\nproject:x:2000:ann,bob\n";
static char nothing[] = "";

static struct identity someone(uid_t uid, gid_t gid, gid_t *groups, size_t count, const char *user)
{
    struct identity who = {.uid = uid, .gid = gid, .groups = groups, .group_count = count};

    identity_from(&who, host_passwd, host_group, user, "/home/x");
    return who;
}

static void gives(char *text, const char *wanted)
{
    if (strcmp(text, wanted) != 0) {
        fprintf(stderr, "got:\n%swanted:\n%s", text, wanted);
        exit(EXIT_FAILURE);
    }
    free(text);
}

static void callers_own_line_is_added(void)
{
    struct identity who = someone(1000, 1000, NULL, 0, NULL);

    gives(identity_passwd(&who, "root:x:0:0::/root:/bin/sh\n"),
          "root:x:0:0::/root:/bin/sh\nann:x:1000:1000:Ann,,,:/home/ann:/bin/zsh\n");
}

static void an_unknown_uid_gets_a_name(void)
{
    struct identity who = someone(12345, 12345, NULL, 0, NULL);

    gives(identity_passwd(&who, ""), "u12345:x:12345:12345::/home/x:/bin/sh\n");
    who = someone(12345, 12345, NULL, 0, "zoe");
    gives(identity_passwd(&who, ""), "zoe:x:12345:12345::/home/x:/bin/sh\n");
}

static void a_user_who_is_somebody_else_is_not_believed(void)
{
    const char *const liars[] = {"root", "ann", "a:b", "", "0", "-x", "Zoe", "z\nroot",
                                 "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"};

    for (size_t at = 0; at < sizeof liars / sizeof liars[0]; at++) {
        struct identity who = someone(12345, 5, NULL, 0, liars[at]);

        CHECK(strcmp(who.name, "u12345") == 0);
    }
}

static void a_home_that_breaks_the_line_is_dropped(void)
{
    struct identity who = {.uid = 7, .gid = 7};

    identity_from(&who, nothing, nothing, "zoe", "/a:b");
    gives(identity_passwd(&who, ""), "zoe:x:7:7::/:/bin/sh\n");
}

static void the_images_lines_that_contradict_are_replaced(void)
{
    struct identity who = someone(1000, 1000, NULL, 0, NULL);

    gives(identity_passwd(&who, "node:x:1000:1000::/home/node:/bin/sh\n"
                                "ann:x:5:5::/:/bin/sh\n"
                                "anna:x:6:6::/:/bin/sh\n"),
          "anna:x:6:6::/:/bin/sh\nann:x:1000:1000:Ann,,,:/home/ann:/bin/zsh\n");
}

static void malformed_lines_are_kept_out(void)
{
    struct identity who = someone(1000, 1000, NULL, 0, NULL);

    gives(identity_passwd(&who, "\n:x:1:1:::\n+::::::\n#a:x:1:1:::\na:x:1:1::\nb:x:one:1:::\n"
                                "c:x:99999999999:1:::\nd:x:2:2:::\ne:x:3:3::::\nf:x:4:4:::"),
          "d:x:2:2:::\nf:x:4:4:::\nann:x:1000:1000:Ann,,,:/home/ann:/bin/zsh\n");
}

static void every_group_of_the_callers_has_a_line(void)
{
    gid_t groups[] = {2000, 1000, 3000, 2000};
    struct identity who = someone(1000, 1000, groups, 4, NULL);

    gives(identity_group(&who, "root:x:0:\nproject:x:50:\nvideo:x:3000:bob\ntty:x:5:\nbad:x:y:\n"),
          "root:x:0:\ntty:x:5:\nann:x:1000:\nproject:x:2000:ann\ng3000:x:3000:ann\n");
}

static void the_hosts_lines_are_shown_where_that_is_asked_for(void)
{
    gid_t groups[] = {2000};
    struct identity who = someone(1000, 1000, groups, 1, NULL);

    who.shows_passwd = who.shows_group = 1;
    gives(identity_passwd(&who, "root:x:0:0::/:/image\nbob:x:7:7::/:\nimage:x:8:8::/:\n"),
          "root:x:0:0:root:/root:/bin/bash\nbob:x:7:7::/:\nimage:x:8:8::/:\n"
          "ann:x:1000:1000:Ann,,,:/home/ann:/bin/zsh\n");
    /* Not root's, and without members. */
    who = someone(5, 5, NULL, 0, "zoe");
    who.shows_group = 1;
    gives(identity_group(&who, "root:x:0:\nann:x:9:\nwork:x:2000:\ntty:x:6:a\n"),
          "ann:x:1000:\nproject:x:2000:\nroot:x:0:\ntty:x:6:a\ng5:x:5:\n");
}

static void no_line_contradicts_one_that_counts_more(void)
{
    static char passwd[] = "bob:x:1:1::/:\nann:x:3:3::/:\ntoor:x:0:0::/:\nroot:x:0:0::/:\n"
                           "bob:x:4:4::/:\nzoe:x:12345:1::/:\n";
    struct identity who = {.uid = 12345, .gid = 5, .name = "ann", .passwd = "ann:x:12345:5::/:",
                           .shows_passwd = 1};

    identity_from(&who, passwd, nothing, NULL, NULL);
    /* A number with two names in one file has both. */
    gives(identity_passwd(&who, "admin:x:0:0::/:\nimage:x:3:3::/:\nother:x:3:3::/:\n"),
          "bob:x:1:1::/:\ntoor:x:0:0::/:\nroot:x:0:0::/:\nimage:x:3:3::/:\nother:x:3:3::/:\n"
          "ann:x:12345:5::/:\n");
}

static void a_group_whose_name_is_anothers_is_called_by_its_number(void)
{
    static char group[] = "same:x:7:\nsame:x:8:\n";
    gid_t groups[] = {7, 8, 9};
    struct identity who = {.uid = 1, .gid = 5, .groups = groups, .group_count = 3, .name = "a"};

    identity_from(&who, nothing, group, NULL, NULL);
    gives(identity_group(&who, ""), "g5:x:5:\nsame:x:7:a\ng8:x:8:a\ng9:x:9:a\n");
}

static void groups_beyond_the_sites_limit_have_no_member(void)
{
    static char group[] = "one:x:1:\ntwo:x:2:\nthree:x:3:\n";
    gid_t groups[] = {1, 2, 3};
    struct identity who = {.uid = 1, .gid = 1, .groups = groups, .group_count = 3, .name = "a",
                           .shows_group = 1, .most_groups = 1};

    identity_from(&who, nothing, group, NULL, NULL);
    gives(identity_group(&who, ""), "three:x:3:\none:x:1:\ntwo:x:2:a\n");
}

static void line_ends_of_dos_are_line_ends(void)
{
    static char passwd[] = "ann:x:1000:1000::/home/ann:/bin/zsh\r\n\r\nbob:x:2:2::/:/bin/sh\r\n";
    static char group[] = "work:x:1000:bob\r\n";
    struct identity who = {.uid = 1000, .gid = 1000};

    identity_from(&who, passwd, group, NULL, NULL);
    gives(identity_passwd(&who, passwd), "bob:x:2:2::/:/bin/sh\nann:x:1000:1000::/home/ann:/bin/zsh\n");
    gives(identity_group(&who, "tty:x:5:bob\r"), "tty:x:5:bob\nwork:x:1000:\n");
}

static char *read_back(const char *bytes, size_t length, size_t most)
{
    char path[] = "/tmp/shifter-identity-test.XXXXXX", *text;
    int fd = mkstemp(path);

    CHECK(fd >= 0 && write(fd, bytes, length) == (ssize_t)length);
    close(fd);
    text = accounts_read(path, path, most);
    unlink(path);
    return text;
}

static void a_nul_ends_no_file(void)
{
    static const char bytes[] = "a:x:1:1\n\0\nb:x\0:2:2\0\nc:x:3:\nd:\0";

    gives(read_back(bytes, sizeof bytes - 1, 100), "a:x:1:1\n#\n#:x?:2:2?\nc:x:3:\n#:?");
    gives(read_back("", 0, 100), "");
}

static void a_file_has_at_most_the_size_that_is_allowed(void)
{
    static char bytes[4 << 20];

    memset(bytes, 'x', sizeof bytes);
    fputs("Two warnings follow:\n", stderr);
    gives(read_back(bytes, sizeof bytes, sizeof bytes - 1), "");
    free(read_back(bytes, sizeof bytes, 1 << 20));
    CHECK(strlen(read_back(bytes, sizeof bytes, sizeof bytes)) == sizeof bytes);
}

/* CPU time for `count` groups of the caller's, and as many lines of the host and of the image. */
static double cost(unsigned count)
{
    gid_t *groups = must_allocate(count, sizeof *groups);
    char *host = must_allocate(count, 32), *image = must_allocate(count, 32);
    struct identity who = {.uid = 1, .gid = 1, .groups = groups, .group_count = count,
                           .name = "a", .shows_group = 1};
    clock_t start;
    char *at = host, *image_at = image;

    for (unsigned number = 0; number < count; number++) {
        groups[number] = 2 * number;
        at += sprintf(at, "host%u:x:%u:\n", number, 3 * number);
        image_at += sprintf(image_at, "image%u:x:%u:\n", number, 5 * number);
    }
    start = clock();
    identity_from(&who, nothing, host, NULL, NULL);
    free(identity_group(&who, image));
    return (double)(clock() - start);
}

static void the_cost_grows_with_the_lines_and_not_with_their_square(void)
{
    double least = 1e9;

    /* Four times as many cost four times as much, or 16 times. */
    for (int time = 0; time < 5 && least > 8; time++) {
        double ratio = cost(20000) / cost(5000);

        least = ratio < least ? ratio : least;
    }
    CHECK(least < 8);
}

int main(void)
{
    callers_own_line_is_added();
    an_unknown_uid_gets_a_name();
    a_user_who_is_somebody_else_is_not_believed();
    a_home_that_breaks_the_line_is_dropped();
    the_images_lines_that_contradict_are_replaced();
    malformed_lines_are_kept_out();
    every_group_of_the_callers_has_a_line();
    the_hosts_lines_are_shown_where_that_is_asked_for();
    no_line_contradicts_one_that_counts_more();
    a_group_whose_name_is_anothers_is_called_by_its_number();
    groups_beyond_the_sites_limit_have_no_member();
    line_ends_of_dos_are_line_ends();
    a_nul_ends_no_file();
    a_file_has_at_most_the_size_that_is_allowed();
    the_cost_grows_with_the_lines_and_not_with_their_square();
    puts("identity: all claims hold");
    return EXIT_SUCCESS;
}
