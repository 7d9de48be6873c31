/* A decoded plan: pointers into the bytes that came, all of them checked. */
#ifndef PAUSE_PLAN_H
#define PAUSE_PLAN_H

#include <stdbool.h>
#include <stddef.h>

#include "protocol.h"

struct plan {
    const unsigned char *bytes;
    const struct plan_header *header;
    const struct plan_op *ops;
};

/* Checks every byte of `bytes` (aligned to 8) before anything is believed. False: refused, and *bad_op is the
 * offending operation or -1. */
bool plan_decode(struct plan *plan, const void *bytes, size_t size, int *bad_op);

/* String `n` of `op`, NUL-terminated in place; NULL when absent. */
static inline const char *plan_string(const struct plan *plan, const struct plan_op *op, unsigned n)
{
    return op->strings[n].offset != 0 ? (const char *)plan->bytes + op->strings[n].offset : NULL;
}

/* The string after `item` in a list of NUL-separated strings. */
static inline const char *next_item(const char *item)
{
    while (*item != '\0')
        item++;
    return item + 1;
}

#endif
