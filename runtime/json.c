#include "json.h"

static void begin(struct json *json, const char *name)
{
    fputs(json->empty ? "\n" : ",\n", json->out);
    json->empty = 0;
    fprintf(json->out, "%*s", 2 * json->depth, "");
    if (name != NULL)
        fprintf(json->out, "\"%s\": ", name);
}

void json_open(struct json *json, const char *name, char bracket)
{
    if (json->depth > 0)
        begin(json, name);
    fputc(bracket, json->out);
    json->depth++;
    json->empty = 1;
}

void json_close(struct json *json, char bracket)
{
    json->depth--;
    if (!json->empty)
        fprintf(json->out, "\n%*s", 2 * json->depth, "");
    fputc(bracket, json->out);
    json->empty = 0;
    if (json->depth == 0)
        fputc('\n', json->out);
}

/* How many bytes the character at `at` has; 0: it is none. */
static int length_of(const unsigned char *at)
{
    static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
    int length = at[0] < 0x80 ? 1 : at[0] < 0xC2 ? 0 : at[0] < 0xE0 ? 2 : at[0] < 0xF0 ? 3 : 4;
    unsigned value = at[0] & (0x7Fu >> length);

    if (length < 2)
        return length;
    for (int more = 1; more < length; more++) {
        if ((at[more] & 0xC0) != 0x80)
            return 0;
        value = value << 6 | (at[more] & 0x3Fu);
    }
    return value < least[length] || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)
               ? 0
               : length;
}

void json_quote(FILE *out, const char *text)
{
    const unsigned char *at = (const unsigned char *)text;

    fputc('"', out);
    while (*at != '\0') {
        int length = length_of(at);

        if (length == 0)
            fprintf(out, "\\udc%02x", *at++);
        else if (*at == '"' || *at == '\\')
            fprintf(out, "\\%c", *at++);
        else if (*at < ' ' || *at == 0x7F)
            fprintf(out, "\\u%04x", *at++);
        else
            for (; length > 0; length--)
                fputc(*at++, out);
    }
    fputc('"', out);
}

void json_text(struct json *json, const char *name, const char *text)
{
    begin(json, name);
    if (text == NULL)
        fputs("null", json->out);
    else
        json_quote(json->out, text);
}

void json_number(struct json *json, const char *name, unsigned long long number)
{
    begin(json, name);
    fprintf(json->out, "%llu", number);
}
