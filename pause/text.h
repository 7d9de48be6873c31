/* Text into bounded buffers. (printf of the C library would be a fifth of this program.) */
#ifndef PAUSE_TEXT_H
#define PAUSE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* `bytes` always ends with NUL. */
struct text {
    char *bytes;
    size_t size;
    size_t used;
    bool truncated;
};

#define TEXT(buffer) ((struct text){.bytes = (buffer), .size = sizeof(buffer)})

void text_add(struct text *text, const char *string);
void text_add_escaped(struct text *text, const char *string, const char *special); /* a backslash before each */
void text_add_number(struct text *text, uint64_t number);

#endif
