/* What the container's passwd and group say. */
#include "../identity.h"
#include "cdb_make.h"

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

int main(void)
{
    callers_own_line_is_added();
    an_unknown_uid_gets_a_name();
    a_user_who_is_somebody_else_is_not_believed();
    a_home_that_breaks_the_line_is_dropped();
    the_images_lines_that_contradict_are_replaced();
    malformed_lines_are_kept_out();
    every_group_of_the_callers_has_a_line();
    puts("identity: all claims hold");
    return EXIT_SUCCESS;
}
