#include "maps.h"

#include <stdlib.h>
#include <string.h>

enum { BYTES_MOST = 4 << 20, MAP_BYTES_MOST = 512 << 10, BUCKET_BITS = 11, ROOM_FIRST = 4 };

struct stop {
    struct listing_mark mark;
    size_t length;
    char name[];
};

/* Of a file or a directory. */
struct map {
    struct link link; /* first, for the table */
    size_t bytes;     /* with everything that belongs to it */
    size_t count, room;
    struct file_mark *marks;
    struct stop **stops; /* in the order of the listing */
    uint64_t step;       /* bytes between two of them, at least */
};

void maps_begin(struct maps *maps)
{
    memset(maps, 0, sizeof *maps);
    pthread_mutex_init(&maps->lock, NULL);
}

static void forget(struct maps *maps, struct map *map)
{
    table_remove(&maps->table, &map->link);
    maps->bytes -= map->bytes;
    for (size_t at = 0; map->stops != NULL && at < map->count; at++)
        free(map->stops[at]);
    free(map->stops);
    free(map->marks);
    free(map);
}

void maps_end(struct maps *maps)
{
    while (maps->table.oldest != NULL)
        forget(maps, (struct map *)maps->table.oldest);
    table_end(&maps->table);
}

/* Inodes of both kinds have one series of numbers. */
static uint64_t of_file(uint64_t inode)
{
    return inode << 1;
}

static uint64_t of_directory(uint64_t inode)
{
    return inode << 1 | 1;
}

static void charge(struct maps *maps, struct map *map, size_t bytes)
{
    map->bytes += bytes;
    maps->bytes += bytes;
}

/* With the lock, as all below. */
static struct map *find(struct maps *maps, uint64_t key)
{
    struct link *link = maps->table.buckets == NULL ? NULL : table_find(&maps->table, key);

    if (link != NULL)
        table_touch(&maps->table, link);
    return (struct map *)link;
}

/* All but `map`, which is in use, may go. */
static void keep_within(struct maps *maps, const struct map *map)
{
    while (maps->bytes > BYTES_MOST && maps->table.oldest != &map->link)
        forget(maps, (struct map *)maps->table.oldest);
}

/* NULL if there is no memory. */
static struct map *find_or_make(struct maps *maps, uint64_t key)
{
    struct map *map = find(maps, key);

    if (map != NULL)
        return map;
    if (maps->table.buckets == NULL && table_begin(&maps->table, BUCKET_BITS) < 0)
        return NULL;
    map = calloc(1, sizeof *map);
    if (map == NULL)
        return NULL;
    map->step = LISTING_STEP;
    table_add(&maps->table, &map->link, key);
    charge(maps, map, sizeof *map);
    keep_within(maps, map);
    return map;
}

/* Room for one more entry of `size` bytes in `list`, of `map`; what is there now, or NULL. */
static void *make_room(struct maps *maps, struct map *map, void *list, size_t size)
{
    size_t room = map->room == 0 ? ROOM_FIRST : map->room * 2;

    if (map->count < map->room)
        return list;
    list = realloc(list, room * size);
    if (list == NULL)
        return NULL;
    charge(maps, map, (room - map->room) * size);
    map->room = room;
    return list;
}

/* ---------------------------------------------------------------------------------- files */

uint64_t maps_file_before(struct maps *maps, uint64_t file, uint64_t at, struct file_mark *mark)
{
    const struct map *map;

    pthread_mutex_lock(&maps->lock);
    map = find(maps, of_file(file));
    at = map == NULL ? 0 : at < map->count ? at : map->count;
    if (at > 0)
        *mark = map->marks[at - 1];
    pthread_mutex_unlock(&maps->lock);
    return at;
}

static void add_mark(struct maps *maps, struct map *map, uint64_t at, const struct file_mark *mark)
{
    struct file_mark *marks;

    if (at != map->count + 1 || map->count >= FILE_MARKS_MOST)
        return;
    marks = make_room(maps, map, map->marks, sizeof *marks);
    if (marks == NULL)
        return;
    map->marks = marks;
    marks[map->count++] = *mark;
    keep_within(maps, map);
}

void maps_file_add(struct maps *maps, uint64_t file, uint64_t at, const struct file_mark *mark)
{
    struct map *map;

    pthread_mutex_lock(&maps->lock);
    map = at == 1 ? find_or_make(maps, of_file(file)) : find(maps, of_file(file));
    if (map != NULL)
        add_mark(maps, map, at, mark);
    pthread_mutex_unlock(&maps->lock);
}

uint64_t maps_file_skip(struct maps *maps, uint64_t file, uint64_t at, int over_holes)
{
    const struct map *map;

    pthread_mutex_lock(&maps->lock);
    map = find(maps, of_file(file));
    while (map != NULL && at < map->count) {
        const struct file_mark *mark = &map->marks[at - 1];

        if (over_holes ? mark[1].start != mark->start : mark[1].holes != mark->holes)
            break;
        at++;
    }
    pthread_mutex_unlock(&maps->lock);
    return at;
}

/* ---------------------------------------------------------------------------- directories */

int compare_names(const char *a, size_t a_length, const char *b, size_t b_length)
{
    int order = memcmp(a, b, a_length < b_length ? a_length : b_length);

    return order != 0 ? order : (a_length > b_length) - (a_length < b_length);
}

int maps_know(struct maps *maps, uint64_t directory)
{
    int known;

    pthread_mutex_lock(&maps->lock);
    known = find(maps, of_directory(directory)) != NULL;
    if (!known)
        find_or_make(maps, of_directory(directory));
    pthread_mutex_unlock(&maps->lock);
    return known;
}

/* What a stop is compared with: a byte of the listing, or a name. */
struct wanted {
    uint64_t at;
    const char *name;
    size_t length;
};

static int is_behind(const struct stop *stop, const struct wanted *wanted)
{
    return wanted->name == NULL
               ? stop->mark.at > wanted->at
               : compare_names(stop->name, stop->length, wanted->name, wanted->length) > 0;
}

/* How many stops are not behind it. */
static size_t count_before(const struct map *map, const struct wanted *wanted)
{
    size_t from = 0, to = map->count;

    while (from < to) {
        size_t middle = from + (to - from) / 2;

        if (is_behind(map->stops[middle], wanted))
            to = middle;
        else
            from = middle + 1;
    }
    return from;
}

static int before(struct maps *maps, uint64_t directory, const struct wanted *wanted,
                  struct listing_mark *mark)
{
    const struct map *map;
    size_t at;

    pthread_mutex_lock(&maps->lock);
    map = find(maps, of_directory(directory));
    at = map == NULL ? 0 : count_before(map, wanted);
    if (at > 0)
        *mark = map->stops[at - 1]->mark;
    pthread_mutex_unlock(&maps->lock);
    return at > 0;
}

int maps_before(struct maps *maps, uint64_t directory, uint64_t at, struct listing_mark *mark)
{
    return before(maps, directory, &(struct wanted){at, NULL, 0}, mark);
}

int maps_before_name(struct maps *maps, uint64_t directory, const char *name, size_t length,
                     struct listing_mark *mark)
{
    return before(maps, directory, &(struct wanted){0, name, length}, mark);
}

static size_t size_of(const struct stop *stop)
{
    return sizeof *stop + stop->length;
}

/* Each second one goes. */
static void thin_out(struct maps *maps, struct map *map)
{
    size_t kept = 0;

    for (size_t at = 0; at < map->count; at++) {
        if (at % 2 == 0) {
            map->stops[kept++] = map->stops[at];
            continue;
        }
        map->bytes -= size_of(map->stops[at]);
        maps->bytes -= size_of(map->stops[at]);
        free(map->stops[at]);
    }
    map->count = kept;
    map->step *= 2;
}

/* NULL if there is no memory. */
static struct stop *make_stop(const struct listing_mark *mark, const char *name, size_t length)
{
    struct stop *stop = malloc(sizeof *stop + length);

    if (stop == NULL)
        return NULL;
    stop->mark = *mark;
    stop->length = length;
    memcpy(stop->name, name, length);
    return stop;
}

static void add_stop(struct maps *maps, struct map *map, const struct listing_mark *mark,
                     const char *name, size_t length)
{
    size_t at = count_before(map, &(struct wanted){mark->at, NULL, 0});
    struct stop **stops, *stop;

    if (mark->at < map->step || (at > 0 && mark->at - map->stops[at - 1]->mark.at < map->step))
        return;
    stops = make_room(maps, map, map->stops, sizeof(struct stop *));
    if (stops == NULL)
        return;
    map->stops = stops;
    stop = make_stop(mark, name, length);
    if (stop == NULL)
        return;
    memmove(stops + at + 1, stops + at, (map->count - at) * sizeof(struct stop *));
    stops[at] = stop;
    map->count++;
    charge(maps, map, size_of(stop));
    if (map->count >= LISTING_MARKS_MOST || map->bytes > MAP_BYTES_MOST)
        thin_out(maps, map);
    keep_within(maps, map);
}

void maps_add(struct maps *maps, uint64_t directory, const struct listing_mark *mark,
              const char *name, size_t length)
{
    struct map *map;

    pthread_mutex_lock(&maps->lock);
    /* If it was forgotten meanwhile, who comes next begins with its index. */
    map = find(maps, of_directory(directory));
    if (map != NULL)
        add_stop(maps, map, mark, name, length);
    pthread_mutex_unlock(&maps->lock);
}
