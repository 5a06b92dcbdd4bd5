#include "reference.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { LONGEST = 255, TAG_LONGEST = 128 };

/* A piece of the user's text; pieces are cut out of it, never copied. */
struct piece {
    const char *start;
    size_t length;
};

/* The locale has no say in what a letter is. */
static int is_digit(char c) { return c >= '0' && c <= '9'; }
static int is_lower(char c) { return c >= 'a' && c <= 'z'; }
static int is_upper(char c) { return c >= 'A' && c <= 'Z'; }
static int is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f'); }
static int is_label(char c) { return is_digit(c) || is_lower(c) || is_upper(c); }
static int is_word(char c) { return is_digit(c) || is_lower(c); }

static int equals(struct piece piece, const char *text)
{
    return strlen(text) == piece.length && memcmp(piece.start, text, piece.length) == 0;
}

static int begins(struct piece piece, const char *text)
{
    size_t length = strlen(text);

    return piece.length >= length && memcmp(piece.start, text, length) == 0;
}

/* The offset of the first character of `piece` that is one of `wanted`, or its length. */
static size_t find(struct piece piece, const char *wanted)
{
    size_t at = 0;

    while (at < piece.length && strchr(wanted, piece.start[at]) == NULL)
        at++;
    return at;
}

static struct piece drop(struct piece piece, size_t count)
{
    return (struct piece){piece.start + count, piece.length - count};
}

static int is_hex_digits(struct piece piece)
{
    for (size_t at = 0; at < piece.length; at++)
        if (!is_hex(piece.start[at]))
            return 0;
    return 1;
}

static int is_sha256(struct piece piece)
{
    return piece.length == ID_DIGITS && is_hex_digits(piece);
}

/* An id, or enough of its beginning. */
static int is_id(struct piece piece)
{
    return piece.length >= ID_DIGITS_LEAST && piece.length <= ID_DIGITS && is_hex_digits(piece);
}

static int is_digest(struct piece piece)
{
    return begins(piece, "sha256:") && is_sha256(drop(piece, strlen("sha256:")));
}

static int is_tag(struct piece piece)
{
    if (piece.length == 0 || piece.length > TAG_LONGEST)
        return 0;
    for (size_t at = 0; at < piece.length; at++) {
        char c = piece.start[at];

        if (!is_label(c) && c != '_' && (at == 0 || (c != '.' && c != '-')))
            return 0;
    }
    return 1;
}

static int is_name(struct piece host)
{
    for (;;) {
        size_t end = find(host, ".");

        if (end == 0 || host.start[0] == '-' || host.start[end - 1] == '-')
            return 0;
        for (size_t at = 0; at < end; at++)
            if (!is_label(host.start[at]) && host.start[at] != '-')
                return 0;
        if (end == host.length)
            return 1;
        host = drop(host, end + 1);
    }
}

static int is_ipv6(struct piece host)
{
    for (size_t at = 0; at < host.length; at++) {
        char c = host.start[at];

        if (!is_hex(c) && (c < 'A' || c > 'F') && c != ':')
            return 0;
    }
    return host.length > 0;
}

static int is_host(struct piece domain)
{
    struct piece host = domain, port;
    int bracketed = begins(domain, "[");

    if (bracketed)
        host = drop(host, 1);
    host.length = find(host, bracketed ? "]" : ":");
    port = drop(domain, host.length + (bracketed ? 1 : 0));
    if (bracketed) {
        if (port.length == 0)
            return 0;
        port = drop(port, 1);
    }
    if (port.length > 0) {
        if (port.start[0] != ':' || port.length == 1)
            return 0;
        for (size_t at = 1; at < port.length; at++)
            if (!is_digit(port.start[at]))
                return 0;
    }
    return bracketed ? is_ipv6(host) : is_name(host);
}

/* How long the separator at the start of `rest` is: one of "." "_" "__" or any number of "-". */
static size_t separator(struct piece rest)
{
    size_t length = 0;

    while (length < rest.length && rest.start[length] == '-')
        length++;
    if (length > 0)
        return length;
    if (begins(rest, "__"))
        return 2;
    return begins(rest, ".") || begins(rest, "_") ? 1 : 0;
}

static int is_component(struct piece piece)
{
    if (piece.length == 0 || !is_word(piece.start[0]))
        return 0;
    while (piece.length > 0) {
        if (is_word(piece.start[0])) {
            piece = drop(piece, 1);
            continue;
        }
        size_t length = separator(piece);

        if (length == 0 || length == piece.length || !is_word(piece.start[length]))
            return 0;
        piece = drop(piece, length);
    }
    return 1;
}

/* What is no host may still be written like a component: "my_registry.org". */
static int is_domain(struct piece domain)
{
    return domain.length <= LONGEST && (is_host(domain) || is_component(domain));
}

static int is_path(struct piece path)
{
    for (;;) {
        struct piece component = {path.start, find(path, "/")};

        if (!is_component(component))
            return 0;
        if (component.length == path.length)
            return 1;
        path = drop(path, component.length + 1);
    }
}

/* Whether the text before the first "/" names a registry, as docker decides it. */
static int names_registry(struct piece first)
{
    if (find(first, ".:") < first.length || equals(first, "localhost"))
        return 1;
    for (size_t at = 0; at < first.length; at++)
        if (is_upper(first.start[at]))
            return 1;
    return 0;
}

/* Drop Shifter's "docker:" where what follows cannot be a tag; 0 where another type is named. */
static int drop_type(struct piece *text)
{
    struct piece rest;

    if (begins(*text, "custom:") || begins(*text, "local:") || begins(*text, "id:"))
        return 0;
    if (begins(*text, "docker:")) {
        rest = drop(*text, strlen("docker:"));
        if (find(rest, ":/@") < rest.length && !begins(rest, "//"))
            *text = rest;
    }
    return 1;
}

/* Cut `rest` at its first `mark`: what follows goes into `tail`, whose start is NULL if none. */
static void cut(struct piece *rest, const char *mark, struct piece *tail)
{
    size_t at = find(*rest, mark);

    *tail = (struct piece){NULL, 0};
    if (at < rest->length)
        *tail = drop(*rest, at + 1);
    rest->length = at;
}

/* Cut the port off `domain`, a valid one, without the zeros before it: 0443 is the port 443. */
static struct piece cut_port(struct piece *domain)
{
    size_t start = domain->length;
    struct piece port;

    while (start > 0 && is_digit(domain->start[start - 1]))
        start--;
    if (start == 0 || start == domain->length || domain->start[start - 1] != ':')
        return (struct piece){"", 0};
    port = drop(*domain, start);
    domain->length = start;
    while (port.length > 1 && port.start[0] == '0')
        port = drop(port, 1);
    return port;
}

int reference_normalise(const char *text, char key[REFERENCE_MAX])
{
    struct piece rest = {text, strlen(text)};
    struct piece domain = {"docker.io", strlen("docker.io")}, first, tag, digest, port;
    const char *library;
    int length;

    if (begins(rest, "id:") && is_id(drop(rest, strlen("id:")))) {
        memcpy(key, text, rest.length + 1);
        return 0;
    }
    if (!drop_type(&rest) || is_sha256(rest))
        return -1;
    cut(&rest, "@", &digest);
    first = (struct piece){rest.start, find(rest, "/")};
    if (first.length < rest.length && names_registry(first)) {
        if (!equals(first, "index.docker.io"))
            domain = first;
        rest = drop(rest, first.length + 1);
    }
    cut(&rest, ":", &tag);
    library = equals(domain, "docker.io") && find(rest, "/") == rest.length ? "library/" : "";
    if (!is_domain(domain) || !is_path(rest) || (tag.start != NULL && !is_tag(tag)) ||
        (digest.start != NULL && !is_digest(digest)) ||
        strlen(library) + rest.length > LONGEST)
        return -1;
    if (tag.start == NULL)
        tag = (struct piece){"latest", strlen("latest")};
    if (digest.start != NULL)
        tag = digest;
    port = cut_port(&domain);
    length = snprintf(key, REFERENCE_MAX, "%.*s%.*s/%s%.*s%c%.*s", (int)domain.length, domain.start,
                      (int)port.length, port.start, library, (int)rest.length, rest.start,
                      digest.start != NULL ? '@' : ':', (int)tag.length, tag.start);
    return length > 0 && length < REFERENCE_MAX ? 0 : -1;
}

int reference_is_id(const char *key)
{
    return strncmp(key, "id:", 3) == 0;
}

int reference_is_id_prefix(const char *key)
{
    return reference_is_id(key) && strlen(key) < ID_KEY_LENGTH;
}
