/* Which libraries an image needs, and which modules serve it. */
#include "../description.h"
#include "../requires.h"
#include "cdb_make.h"

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

static const char *const nothing[] = {NULL};
static struct mismatch mismatch;

static void the_very_name_is_served(void)
{
    CHECK(!requires_differ(LIST("libc.so.6", "libmpi.so.12"), LIST("libmpi.so.12"), &mismatch));
}

static void another_version_is_a_mismatch(void)
{
    CHECK(requires_differ(LIST("libc.so.6", "libmpi.so.40"), LIST("libmpi.so.12"), &mismatch));
    CHECK(strcmp(mismatch.wanted, "libmpi.so.12") == 0);
    CHECK(strcmp(mismatch.found, "libmpi.so.40") == 0);
    CHECK(requires_differ(LIST("libmpi.so.12.1"), LIST("libmpi.so.12"), &mismatch));
    CHECK(requires_differ(LIST("libmpi.so"), LIST("libmpi.so.12"), &mismatch));
    CHECK(requires_differ(LIST("libmpi.so.12"), LIST("libmpi.so"), &mismatch));
}

static void every_name_is_looked_at(void)
{
    CHECK(requires_differ(LIST("libfabric.so.2", "libmpi.so.12"),
                          LIST("libmpi.so.12", "libfabric.so.1"), &mismatch));
    CHECK(strcmp(mismatch.wanted, "libfabric.so.1") == 0);
}

static void an_image_without_such_a_library_is_no_mismatch(void)
{
    CHECK(!requires_differ(LIST("libc.so.6"), LIST("libmpi.so.12"), &mismatch));
    CHECK(!requires_differ(nothing, LIST("libmpi.so.12"), &mismatch));
    CHECK(!requires_differ(NULL, LIST("libmpi.so.12"), &mismatch));
    CHECK(!requires_differ(LIST("libmpi.so.40"), nothing, &mismatch));
    CHECK(!requires_differ(LIST("libmpi.so.40"), NULL, &mismatch));
}

static void a_name_that_only_begins_alike_is_another_library(void)
{
    CHECK(!requires_differ(LIST("libmpi_cxx.so.40", "libmpich.so.1", "libmp.so.1", "xlibmpi.so.1"),
                           LIST("libmpi.so.12"), &mismatch));
    CHECK(!requires_differ(LIST("libfoo-1.so"), LIST("libfoo-2.so"), &mismatch));
    CHECK(!requires_differ(LIST(".so.1", ".so", "", "libmpi.sox"), LIST("libmpi.so.12"), &mismatch));
}

static void one_of_several_versions_will_do(void)
{
    CHECK(!requires_differ(LIST("libmpi.so.40"), LIST("libmpi.so.12", "libmpi.so.40"), &mismatch));
    CHECK(!requires_differ(LIST("libmpi.so.40", "libmpi.so.12"), LIST("libmpi.so.12"), &mismatch));
}

/* An image file with nothing but its end, which says `fields`. */
static int image_file(const char *fields)
{
    static unsigned char bytes[16384];
    char value[4096];
    size_t length, at = 4096;

    snprintf(value, sizeof value, "%s", fields);
    length = cdb_seal("image", value);
    memset(bytes, 0, sizeof bytes);
    memcpy(bytes, "hsqs", 4);
    cdb_put(bytes + 40, 96);
    at += (size_t)sprintf((char *)bytes + at, "shifter-lite image 1 3 %zu\n{}\n", length);
    memcpy(bytes + at, value, length);
    return cdb_file(bytes, sizeof bytes);
}

static void an_image_says_which_libraries_it_needs(void)
{
    struct description description;
    int file = image_file("v=1\ngroup=\nlibs=libc.so.6\nlibs=libmpi.so.40\nlibsx=no\npasswd=\n");

    description_read(&description, file);
    CHECK(strcmp(description.libs[0], "libc.so.6") == 0);
    CHECK(strcmp(description.libs[1], "libmpi.so.40") == 0 && description.libs[2] == NULL);
    CHECK(requires_differ(description.libs, LIST("libmpi.so.12"), &mismatch));
    requires_check(description.libs, "mpich", LIST("libmpi.so.40"));
    close(file);
}

static void of_an_image_that_says_nothing_nothing_is_held(void)
{
    struct description description;
    int file = image_file("v=1\nimported=yes\n"), nonsense = cdb_file((const unsigned char *)"x", 1);

    description_read(&description, file);
    CHECK(!requires_differ(description.libs, LIST("libmpi.so.12"), &mismatch));
    description_read(&description, nonsense);
    CHECK(!requires_differ(description.libs, LIST("libmpi.so.12"), &mismatch));
    close(file);
    close(nonsense);
}

int main(void)
{
    the_very_name_is_served();
    another_version_is_a_mismatch();
    every_name_is_looked_at();
    an_image_without_such_a_library_is_no_mismatch();
    a_name_that_only_begins_alike_is_another_library();
    one_of_several_versions_will_do();
    an_image_says_which_libraries_it_needs();
    of_an_image_that_says_nothing_nothing_is_held();
    puts("requires: all claims hold");
    return EXIT_SUCCESS;
}
