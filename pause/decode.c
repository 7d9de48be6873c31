/* The plan decoder. It believes nothing: whoever can make the daemon send bytes must not get root's interpreter to
 * read beside them. The layout is canonical (each string right after the one before it, padding zero), so that there
 * is exactly one encoding of a plan and a flipped byte is either a different plan or no plan. */
#include <string.h>

#include "plan.h"

enum slot_rule { UNUSED, SLOT, SLOT_OR_NONE };

enum string_rule {
    ABSENT,
    TEXT,     /* present, not empty, no NUL inside */
    TEXT_OPT, /* the same, or absent */
    BYTES,    /* present, anything, also nothing */
    LIST_A,   /* field a counts its NUL-separated strings; absent when 0 */
    LIST_B,   /* the same with field b */
    GROUPS,   /* field c counts its uint32_t; absent when 0 */
    CAPS,     /* five uint64_t */
    PROGRAM,  /* struct sock_filter, 8 bytes each */
};

enum { A = 1, B = 2, C = 4 };

struct rule {
    uint8_t known;
    uint8_t fd;
    uint8_t at;
    uint8_t numbers; /* which of a, b, c are used */
    uint16_t flags;
    uint8_t strings[PLAN_STRINGS];
};

static const struct rule rules[OP_CODE_END] = {
    [OP_JOIN_CGROUP] = {1, UNUSED, UNUSED, 0, 0, {TEXT}},
    [OP_SETNS] = {1, SLOT, UNUSED, A, 0, {ABSENT}},
    [OP_UNSHARE] = {1, UNUSED, UNUSED, A, 0, {ABSENT}},
    [OP_ROOT_PROPAGATION] = {1, UNUSED, UNUSED, A, 0, {ABSENT}},
    [OP_OPEN_TREE] = {1, SLOT, SLOT_OR_NONE, A, 0, {TEXT, TEXT_OPT}},
    [OP_OVERLAY] = {1, SLOT, UNUSED, A | B, OVERLAY_VOLATILE, {LIST_A, TEXT_OPT, TEXT_OPT}},
    [OP_FILESYSTEM] = {1, SLOT, UNUSED, A | B, 0, {TEXT, LIST_A, TEXT_OPT}},
    [OP_MOUNT_SETATTR] = {1, SLOT, SLOT_OR_NONE, A | B | C, MOUNT_SETATTR_RECURSIVE, {ABSENT}},
    [OP_MOVE_MOUNT] = {1, SLOT, SLOT_OR_NONE, 0,
                       MOVE_MOUNT_CREATE_DIR | MOVE_MOUNT_CREATE_FILE | MOVE_MOUNT_PLAIN_PATH, {TEXT}},
    [OP_MKDIR] = {1, UNUSED, SLOT_OR_NONE, A | B | C, 0, {TEXT}},
    [OP_SYMLINK] = {1, UNUSED, SLOT_OR_NONE, 0, 0, {TEXT, TEXT}},
    [OP_MKNOD] = {1, UNUSED, SLOT_OR_NONE, A | B | C, 0, {TEXT}},
    [OP_WRITE_FILE] = {1, UNUSED, SLOT_OR_NONE, A, WRITE_FILE_CREATE, {TEXT, BYTES}},
    [OP_MASK] = {1, SLOT, SLOT_OR_NONE, 0, 0, {TEXT}},
    [OP_READ_ONLY] = {1, UNUSED, SLOT_OR_NONE, 0, 0, {TEXT}},
    [OP_OPEN_PATH] = {1, SLOT, SLOT_OR_NONE, A, 0, {TEXT}},
    [OP_PIVOT_ROOT] = {1, SLOT, UNUSED, 0, 0, {ABSENT}},
    [OP_HOSTNAME] = {1, UNUSED, UNUSED, 0, 0, {TEXT}},
    [OP_SET_RLIMIT] = {1, UNUSED, UNUSED, A | B | C, 0, {ABSENT}},
    [OP_CREDENTIALS] = {1, UNUSED, UNUSED, A | B | C, 0, {GROUPS, CAPS}},
    [OP_NO_NEW_PRIVS] = {1, UNUSED, UNUSED, 0, 0, {ABSENT}},
    [OP_SECCOMP] = {1, UNUSED, UNUSED, A, 0, {PROGRAM}},
    [OP_CHDIR] = {1, UNUSED, UNUSED, 0, 0, {TEXT}},
    [OP_SETSID] = {1, UNUSED, UNUSED, 0, 0, {ABSENT}},
    [OP_UMASK] = {1, UNUSED, UNUSED, A, 0, {ABSENT}},
    [OP_EXEC] = {1, SLOT_OR_NONE, UNUSED, A | B, 0, {LIST_A, LIST_B}},
    [OP_DUP] = {1, SLOT, UNUSED, A, 0, {ABSENT}},
    [OP_PTY] = {1, SLOT, SLOT_OR_NONE, A | B | C, PTY_CONSOLE, {ABSENT}},
    [OP_SEND_FD] = {1, SLOT, UNUSED, 0, 0, {ABSENT}},
    [OP_SOCKET] = {1, SLOT, UNUSED, A | B | C, 0, {ABSENT}},
    [OP_LOOPBACK_UP] = {1, UNUSED, UNUSED, 0, 0, {ABSENT}},
    [OP_SESSION_KEYRING] = {1, UNUSED, UNUSED, 0, 0, {ABSENT}},
    [OP_CLOSE] = {1, SLOT, UNUSED, 0, 0, {ABSENT}},
    [OP_MARK] = {1, UNUSED, UNUSED, A, 0, {ABSENT}},
};

static bool slot_ok(enum slot_rule rule, int slot, uint32_t slot_count)
{
    if (slot == NONE)
        return rule != SLOT;
    return rule != UNUSED && slot >= 0 && (uint32_t)slot < slot_count;
}

static bool list_ok(const unsigned char *bytes, uint32_t length, uint64_t count)
{
    uint64_t found = 1;
    for (uint32_t i = 0; i < length; i++)
        found += bytes[i] == '\0';
    return found == count;
}

static bool content_ok(enum string_rule rule, const struct plan_op *op, const unsigned char *bytes, uint32_t length)
{
    switch (rule) {
    case ABSENT:
        return false;
    case TEXT:
    case TEXT_OPT:
        return length > 0 && memchr(bytes, '\0', length) == NULL;
    case BYTES:
        return true;
    case LIST_A:
        return list_ok(bytes, length, op->a);
    case LIST_B:
        return list_ok(bytes, length, op->b);
    case GROUPS:
        return op->c > 0 && op->c <= MAX_PLAN_BYTES && length == op->c * sizeof(uint32_t);
    case CAPS:
        return length == 5 * sizeof(uint64_t);
    case PROGRAM:
        return length > 0 && length % 8 == 0 && length / 8 <= 4096;
    }
    return false;
}

static bool absent_ok(enum string_rule rule, const struct plan_op *op)
{
    switch (rule) {
    case ABSENT:
    case TEXT_OPT:
        return true;
    case LIST_A:
        return op->a == 0;
    case LIST_B:
        return op->b == 0;
    case GROUPS:
        return op->c == 0;
    case TEXT:
    case BYTES:
    case CAPS:
    case PROGRAM:
        return false;
    }
    return false;
}

/* What the table cannot say. */
static bool meaning_ok(const struct plan_op *op, bool last)
{
    if ((op->code == OP_EXEC) != last)
        return false;
    switch (op->code) {
    case OP_EXEC:
        return op->a > 0 && (op->flags & FLAG_OPTIONAL) == 0;
    case OP_OVERLAY:
        return op->a > 0 && (op->strings[1].offset != 0) == (op->strings[2].offset != 0) &&
               (op->strings[1].offset != 0 || (op->flags & OVERLAY_VOLATILE) == 0);
    case OP_DUP:
        return op->a <= 2;
    case OP_MARK:
        return op->a >= 1 && op->a < MAX_MARKS;
    case OP_MOVE_MOUNT:
        return (op->flags & (MOVE_MOUNT_CREATE_DIR | MOVE_MOUNT_CREATE_FILE)) !=
               (MOVE_MOUNT_CREATE_DIR | MOVE_MOUNT_CREATE_FILE);
    case OP_CREDENTIALS:
        /* The last value of each is the kernel's "leave it": it would keep root. */
        return op->a < UINT32_MAX && op->b < UINT32_MAX;
    default:
        return true;
    }
}

/* Checks the string at `place` against `rule`; *cursor is the first byte not yet accounted for. */
static bool string_ok(const unsigned char *bytes, uint32_t size, uint32_t *cursor, const struct plan_op *op,
                      const struct plan_string *place, enum string_rule rule)
{
    if (place->offset == 0)
        return place->length == 0 && absent_ok(rule, op);
    uint32_t start = (*cursor + PLAN_ALIGNMENT - 1) & ~(uint32_t)(PLAN_ALIGNMENT - 1);
    if (place->offset != start || start >= size || place->length >= size - start)
        return false;
    for (uint32_t i = *cursor; i < start; i++)
        if (bytes[i] != 0)
            return false;
    if (bytes[start + place->length] != '\0' || !content_ok(rule, op, bytes + start, place->length))
        return false;
    *cursor = start + place->length + 1;
    return true;
}

static bool op_ok(const struct plan_op *op, const struct plan_header *header, bool last)
{
    if (op->code >= OP_CODE_END || !rules[op->code].known)
        return false;
    const struct rule *rule = &rules[op->code];
    if ((op->flags & ~(rule->flags | FLAG_OPTIONAL)) != 0 || op->zero != 0)
        return false;
    if (!slot_ok(rule->fd, op->fd, header->slot_count) || !slot_ok(rule->at, op->at, header->slot_count))
        return false;
    if (((rule->numbers & A) == 0 && op->a != 0) || ((rule->numbers & B) == 0 && op->b != 0) ||
        ((rule->numbers & C) == 0 && op->c != 0))
        return false;
    return meaning_ok(op, last);
}

bool plan_decode(struct plan *plan, const void *data, size_t size, int *bad_op)
{
    const unsigned char *bytes = data;
    const struct plan_header *header = data;
    *bad_op = -1;
    if (size < sizeof *header || size > MAX_PLAN_BYTES)
        return false;
    if (header->magic != PLAN_MAGIC || header->version != PLAN_VERSION || header->total_size != size)
        return false;
    if (header->op_count == 0 || header->op_count > MAX_OPS || header->slot_count > MAX_SLOTS)
        return false;
    uint32_t cursor = (uint32_t)sizeof *header + header->op_count * (uint32_t)sizeof(struct plan_op);
    if (cursor > size)
        return false;
    const struct plan_op *ops = (const struct plan_op *)(const void *)(bytes + sizeof *header);
    for (int i = 0; i < header->op_count; i++) {
        *bad_op = i;
        if (!op_ok(&ops[i], header, i == header->op_count - 1))
            return false;
        for (unsigned s = 0; s < PLAN_STRINGS; s++)
            if (!string_ok(bytes, (uint32_t)size, &cursor, &ops[i], &ops[i].strings[s], rules[ops[i].code].strings[s]))
                return false;
    }
    *bad_op = -1;
    if (cursor != size)
        return false;
    *plan = (struct plan){.bytes = bytes, .header = header, .ops = ops};
    return true;
}
