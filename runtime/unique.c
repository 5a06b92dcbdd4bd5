#include "unique.h"

#include "files.h"

#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

#define PRIME 2147483647u /* 2^31 - 1 */

/* A name of `value` bytes, or, where that is NULL, the number `value`. */
struct unique_slot {
    const char *name;
    uint32_t value, source; /* 0: the slot is free */
};

/* A polynomial modulo a prime, at a place that is not known before: two keys meet by chance only.
   Its coefficients are three bytes each. */
static uint64_t hash_bytes(uint64_t base, const char *bytes, size_t length)
{
    uint64_t hash = length + 1;
    uint32_t digit = 0;

    for (size_t at = 0; at < length; at++) {
        digit = digit << 8 | (unsigned char)bytes[at];
        if (at % 3 == 2 || at + 1 == length) {
            hash = (hash * base + digit) % PRIME;
            digit = 0;
        }
    }
    return hash * 0x9e3779b97f4a7c15u >> 32;
}

static int is_same(const struct unique_slot *one, const struct unique_slot *other)
{
    if (one->value != other->value || (one->name == NULL) != (other->name == NULL))
        return 0;
    return one->name == NULL || other->name == NULL ||
           memcmp(one->name, other->name, one->value) == 0;
}

/* The slot that has the same key, or the free one where it belongs. */
static struct unique_slot *find(const struct unique *set, const struct unique_slot *key)
{
    const char *bytes = key->name != NULL ? key->name : (const char *)&key->value;
    size_t length = key->name != NULL ? key->value : sizeof key->value;
    size_t at = hash_bytes(set->base, bytes, length) & (set->room - 1);

    while (set->slots[at].source != 0 && !is_same(&set->slots[at], key))
        at = (at + 1) & (set->room - 1);
    return &set->slots[at];
}

/* Keep half of the slots free, and two of them for what is added next. */
static void make_room(struct unique *set)
{
    struct unique old = *set;

    if (2 * (set->count + 2) <= set->room)
        return;
    set->room = 2 * old.room;
    set->slots = must_allocate(set->room, sizeof *set->slots);
    for (size_t at = 0; at < old.room; at++)
        if (old.slots[at].source != 0)
            *find(set, &old.slots[at]) = old.slots[at];
    free(old.slots);
}

void unique_begin(struct unique *set, size_t lines)
{
    const void *random = (const void *)(uintptr_t)getauxval(AT_RANDOM);
    uint32_t base = 0;

    if (random != NULL)
        memcpy(&base, random, sizeof base);
    *set = (struct unique){.room = 64, .base = PRIME / 2 + base % (PRIME / 2)};
    while (set->room < 4 * lines)
        set->room *= 2;
    set->slots = must_allocate(set->room, sizeof *set->slots);
}

int unique_add(struct unique *set, const char *name, size_t length, uint32_t number,
               uint32_t source)
{
    struct unique_slot named = {name, (uint32_t)length, source};
    struct unique_slot numbered = {NULL, number, source};
    struct unique_slot *name_slot, *number_slot;

    make_room(set);
    name_slot = find(set, &named);
    number_slot = find(set, &numbered);
    if (name_slot->source != 0 || (number_slot->source != 0 && number_slot->source != source))
        return 0;
    set->count += number_slot->source == 0 ? 2 : 1;
    *name_slot = named;
    if (number_slot == name_slot)
        number_slot = find(set, &numbered);
    *number_slot = numbered;
    return 1;
}

void unique_end(struct unique *set)
{
    free(set->slots);
    set->slots = NULL;
}
