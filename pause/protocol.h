/* The two wire formats of this program: plans, and the messages between a monitor and the daemon.
 *
 * Both ends are on one host, so numbers are in native byte order. sandbox/runtime/ops.py and
 * sandbox/runtime/protocol.py are the other side; a unit test compares the numbers. */
#ifndef PAUSE_PROTOCOL_H
#define PAUSE_PROTOCOL_H

#include <stdint.h>

/* ---- plans ---- */

#define PLAN_MAGIC 0x50584253u /* "SBXP" */
#define PLAN_VERSION 1
#define MAX_OPS 1024
#define MAX_SLOTS 256
#define MAX_PLAN_BYTES 4194304
#define PLAN_STRINGS 3
#define PLAN_ALIGNMENT 8

#define HOST (-1) /* `at`: a path of the host, not below a slot */
#define NONE (-1) /* `fd`, `at`: not used */

#define FLAG_OPTIONAL 0x8000 /* a failure is a warning */

enum op_code {
    OP_JOIN_CGROUP = 1,
    OP_SETNS = 2,
    OP_UNSHARE = 3,
    OP_ROOT_PROPAGATION = 4,
    OP_OPEN_TREE = 5,
    OP_OVERLAY = 6,
    OP_FILESYSTEM = 7,
    OP_MOUNT_SETATTR = 8,
    OP_MOVE_MOUNT = 9,
    OP_MKDIR = 11,
    OP_SYMLINK = 12,
    OP_MKNOD = 13,
    OP_WRITE_FILE = 14,
    OP_MASK = 15,
    OP_READ_ONLY = 16,
    OP_OPEN_PATH = 17,
    OP_PIVOT_ROOT = 18,
    OP_HOSTNAME = 19,
    OP_SET_RLIMIT = 20,
    OP_CREDENTIALS = 22,
    OP_NO_NEW_PRIVS = 24,
    OP_SECCOMP = 25,
    OP_CHDIR = 26,
    OP_SETSID = 27,
    OP_UMASK = 28,
    OP_EXEC = 29,
    OP_DUP = 30,
    OP_PTY = 31,
    OP_SEND_FD = 32,
    OP_SOCKET = 33,
    OP_LOOPBACK_UP = 34,
    OP_SESSION_KEYRING = 35,
    OP_CLOSE = 36,
    OP_MARK = 37,
    OP_CODE_END = 38,
};

#define MOUNT_SETATTR_RECURSIVE 1
#define MOVE_MOUNT_CREATE_DIR 1
#define MOVE_MOUNT_CREATE_FILE 2
#define MOVE_MOUNT_PLAIN_PATH 4 /* no symbolic link anywhere in the path */
#define WRITE_FILE_CREATE 1
#define PTY_CONSOLE 1
#define OVERLAY_VOLATILE 1

struct plan_header {
    uint32_t magic;
    uint16_t version;
    uint16_t op_count;
    uint32_t total_size;
    uint32_t slot_count;
};

struct plan_string {
    uint32_t offset; /* from the start of the plan; a NUL follows the last byte */
    uint32_t length;
};

struct plan_op {
    uint16_t code;
    uint16_t flags;
    int16_t fd;
    int16_t at;
    uint64_t a, b, c;
    struct plan_string strings[PLAN_STRINGS];
    uint64_t zero;
};

_Static_assert(sizeof(struct plan_header) == 16, "wire format");
_Static_assert(sizeof(struct plan_op) == 64, "wire format");

/* ---- messages ---- */

#define WIRE_MAGIC 0x4d584253u /* "SBXM" */
#define WIRE_VERSION 1
#define PROCESS_ID_BYTES 104 /* padded with NUL; at most 100 used */
#define MAX_PROCESS_ID 100
#define MAX_PROCESSES 512
#define MAX_CONNECTIONS 8
#define MAX_MESSAGE_FDS 253 /* SCM_MAX_FD of the kernel */
#define MAX_SENT_FDS 32
#define MAX_WARNINGS 64
#define MAX_MARKS 16
#define LIST_ENTRIES 24 /* in one packet */

enum request_kind {
    REQUEST_HELLO = 1,
    REQUEST_RUN = 2,         /* descriptors: the plan, then slots 0.. */
    REQUEST_SIGNAL = 3,      /* value: signal number */
    REQUEST_LIST = 4,
    REQUEST_ATTACH = 5,      /* descriptors: as flags ATTACH_* say, in that order */
    REQUEST_STDIN = 6,
    REQUEST_CLOSE_STDIN = 7,
    REQUEST_REOPEN_LOG = 8,  /* descriptors: the new log */
    REQUEST_FORGET = 9,
    REQUEST_SHUTDOWN = 10,
};

#define RUN_STDIN 1
#define RUN_TTY 2
#define RUN_CAPTURE 4
#define RUN_RECORD_EXIT 8
#define ATTACH_STDOUT 1
#define ATTACH_STDERR 2

struct request {
    uint32_t magic;
    uint16_t version;
    uint16_t kind;
    uint64_t seq;
    uint64_t clone_flags;
    int16_t pidns_slot;
    int16_t cgroup_slot;
    int16_t log_slot;
    uint16_t flags;
    int32_t value;
    uint32_t zero;
    char process_id[PROCESS_ID_BYTES];
};

enum reply_kind {
    REPLY_ANSWER = 1,
    REPLY_EXIT = 2, /* unasked: one entry, a process that exited */
};

/* Where a request failed. */
enum stage {
    STAGE_NONE = 0,
    STAGE_REQUEST = 1, /* the monitor refused or could not do it */
    STAGE_DECODE = 2,  /* the plan was refused; op_index is the offending operation or -1 */
    STAGE_CLONE = 3,   /* no child was born */
    STAGE_OP = 4,      /* operation op_index failed in the child */
    STAGE_DIED = 5,    /* the child died before it reached exec */
};

struct reply {
    uint32_t magic;
    uint16_t version;
    uint16_t kind;
    uint64_t seq;
    int32_t error;
    int32_t op_index;
    int32_t pid;
    uint16_t stage;
    uint16_t more; /* another packet of this answer follows (LIST) */
    uint16_t warning_count;
    uint16_t mark_count;
    uint32_t entry_count;
    /* then the warnings, the marks, the entries */
};

struct wire_warning {
    uint32_t op_index;
    uint32_t error;
};

struct wire_mark {
    uint64_t number;
    uint64_t monotonic_ns;
};

enum process_state {
    STATE_STARTING = 1,
    STATE_RUNNING = 2,
    STATE_EXITED = 3,
};

struct wire_process {
    char process_id[PROCESS_ID_BYTES];
    int32_t pid;
    uint32_t state;
    int32_t code;
    int32_t signal;
    uint64_t time_ns;
    uint64_t started_ns;
};

_Static_assert(sizeof(struct request) == 144, "wire format");
_Static_assert(sizeof(struct reply) == 40, "wire format");
_Static_assert(sizeof(struct wire_process) == 136, "wire format");

#endif
