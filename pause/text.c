#include "text.h"

#include <string.h>

static void add(struct text *text, char c)
{
    if (text->used + 1 < text->size)
        text->bytes[text->used++] = c;
    else
        text->truncated = true;
    text->bytes[text->used] = '\0';
}

void text_add(struct text *text, const char *string)
{
    for (; *string != '\0'; string++)
        add(text, *string);
}

void text_add_escaped(struct text *text, const char *string, const char *special)
{
    for (; *string != '\0'; string++) {
        if (strchr(special, *string) != NULL)
            add(text, '\\');
        add(text, *string);
    }
}

void text_add_number(struct text *text, uint64_t number)
{
    char digits[21];
    char *first = digits + sizeof digits - 1;
    *first = '\0';
    do
        *--first = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    text_add(text, first);
}
