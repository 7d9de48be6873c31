/* libFuzzer: whatever the decoder accepts must be safe to read as the interpreter reads it. Also a plain program for
 * the corpus (without libFuzzer). */
#include <stdlib.h>
#include <string.h>

#include "../plan.h"

static volatile size_t sink;

static void read_like_interpreter(const struct plan *plan)
{
    for (int i = 0; i < plan->header->op_count; i++) {
        const struct plan_op *op = &plan->ops[i];
        for (unsigned s = 0; s < PLAN_STRINGS; s++) {
            const char *text = plan_string(plan, op, s);
            if (text == NULL)
                continue;
            sink += strlen(text);
            if (op->strings[s].length > 0)
                sink += (size_t)text[op->strings[s].length - 1];
        }
        if (op->fd >= 0 && (uint32_t)op->fd >= plan->header->slot_count)
            abort();
        if (op->at >= 0 && (uint32_t)op->at >= plan->header->slot_count)
            abort();
        if (op->code == OP_EXEC || op->code == OP_OVERLAY) {
            const char *item = plan_string(plan, op, 0);
            for (uint64_t n = 0; n < op->a; n++, item = next_item(item))
                sink += strlen(item);
            if ((size_t)(item - plan_string(plan, op, 0)) != op->strings[0].length + 1)
                abort();
        }
        if (op->code == OP_CREDENTIALS) {
            const uint64_t *caps = (const uint64_t *)(const void *)plan_string(plan, op, 1);
            sink += (size_t)(caps[0] + caps[4]);
            const uint32_t *groups = (const uint32_t *)(const void *)plan_string(plan, op, 0);
            if (op->c > 0)
                sink += groups[op->c - 1];
        }
    }
    if (plan->ops[plan->header->op_count - 1].code != OP_EXEC)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct plan plan;
    int bad_op;
    /* A copy of exactly this size: reading one byte further is then seen. */
    uint8_t *copy = malloc(size > 0 ? size : 1);
    if (copy == NULL)
        return 0;
    memcpy(copy, data, size);
    if (plan_decode(&plan, copy, size, &bad_op))
        read_like_interpreter(&plan);
    free(copy);
    return 0;
}
