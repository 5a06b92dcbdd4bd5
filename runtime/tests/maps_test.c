/* What is remembered of large files and directories is right, and bounded. */
#include "../serve/maps.h"
#include "check.h"

#include <stdio.h>
#include <string.h>

enum { BOUND = (4 << 20) + (512 << 10), NAME = 200 };

static struct maps maps;

static struct listing_mark mark_at(uint64_t at)
{
    return (struct listing_mark){{at / 8192 * 8194, (uint32_t)(at % 8192)}, at};
}

/* Names of the listing's bytes, in their order. */
static size_t name_of(uint64_t at, char name[NAME + 1])
{
    return (size_t)snprintf(name, NAME + 1, "%0*llu", NAME, (unsigned long long)at);
}

static void add(uint64_t directory, uint64_t at)
{
    const struct listing_mark mark = mark_at(at);
    char name[NAME + 1];
    size_t length = name_of(at, name);

    maps_add(&maps, directory, &mark, name, length);
}

/* The mark is at most `near` bytes before what is looked for, by its place and by its name. */
static void expect(uint64_t directory, uint64_t at, uint64_t near)
{
    struct listing_mark by_place, by_name;
    char name[NAME + 1];
    size_t length = name_of(at, name);

    CHECK(maps_before(&maps, directory, at, &by_place));
    CHECK(by_place.at <= at && at - by_place.at <= near);
    CHECK(by_place.place.offset == by_place.at % 8192);
    CHECK(maps_before_name(&maps, directory, name, length, &by_name));
    CHECK(by_name.at == by_place.at);
}

static void directories_are_known_at_about_equal_distances(void)
{
    struct listing_mark mark;

    CHECK(!maps_know(&maps, 1) && maps_know(&maps, 1));
    CHECK(!maps_before(&maps, 1, 1 << 20, &mark));
    /* In no order, and each twice. */
    for (uint64_t round = 0; round < 2; round++)
        for (uint64_t at = 0; at < 1000; at++)
            add(1, (at * 7919 % 1000) * 5000);
    for (uint64_t at = 2 * LISTING_STEP; at < 5000000; at += 777)
        expect(1, at, 10000);
    CHECK(!maps_before(&maps, 1, 100, &mark));
}

static void a_directory_of_any_size_takes_no_more_than_its_share(void)
{
    size_t before = maps.bytes;

    maps_know(&maps, 2);
    for (uint64_t at = 1; at < UINT32_MAX / 8192; at++)
        add(2, at * 8192);
    CHECK(maps.bytes - before <= (512 << 10) + 4096);
    for (uint64_t at = 8 << 20; at < UINT32_MAX; at += 123456789)
        expect(2, at, 8 << 20);
}

static void all_together_are_bounded_and_the_newest_are_there(void)
{
    for (uint64_t directory = 10; directory < 20000; directory++) {
        maps_know(&maps, directory);
        for (uint64_t at = 1; at < 10; at++)
            add(directory, at * 8192);
        CHECK(maps.bytes <= BOUND);
    }
    expect(19999, 70000, 8192);
    CHECK(!maps_know(&maps, 10));
}

static void files_are_known_in_their_order(void)
{
    struct file_mark mark = {{0, 0}, 0, 0};

    CHECK(maps_file_before(&maps, 1, 100, &mark) == 0);
    for (uint64_t at = 1; at < FILE_MARKS_MOST + 100; at++) {
        mark = (struct file_mark){{at, 0}, at < 10 ? 5 : at, at < 10 ? at : 10};
        maps_file_add(&maps, 1, at, &mark);
        maps_file_add(&maps, 1, at, &mark);
        maps_file_add(&maps, 1, at + 2, &mark);
    }
    CHECK(maps_file_before(&maps, 1, 7, &mark) == 7 && mark.place.block == 7);
    CHECK(maps_file_before(&maps, 1, UINT64_MAX, &mark) == FILE_MARKS_MOST);
    CHECK(maps_file_skip(&maps, 1, 1, 1) == 9);
    CHECK(maps_file_skip(&maps, 1, 1, 0) == 1);
    CHECK(maps_file_skip(&maps, 1, 10, 0) == FILE_MARKS_MOST);
}

/* A file and a directory of the same number, which a damaged image may have. */
static void files_are_no_directories(void)
{
    struct listing_mark mark;
    struct file_mark file;

    CHECK(maps_file_before(&maps, 19999, 5, &file) == 0);
    CHECK(!maps_before(&maps, 1, UINT32_MAX, &mark));
}

int main(void)
{
    maps_begin(&maps);
    directories_are_known_at_about_equal_distances();
    a_directory_of_any_size_takes_no_more_than_its_share();
    all_together_are_bounded_and_the_newest_are_there();
    files_are_known_in_their_order();
    files_are_no_directories();
    maps_end(&maps);
    printf("maps: good\n");
    return 0;
}
