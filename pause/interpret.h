/* The interpreter's rooms: what the handlers of operations share. It runs in a child of the monitor, between clone
 * and exec, alone in its process. */
#ifndef PAUSE_INTERPRET_H
#define PAUSE_INTERPRET_H

#include <sys/resource.h>
#include <sys/types.h>

#include "plan.h"

/* What a child tells the monitor, in one packet before exec and, when that or anything before fails, in another. */
struct report {
    int32_t failed; /* 0: about to exec */
    int32_t error;
    int32_t op_index;
    uint16_t warning_count;
    uint16_t mark_count;
    uint16_t has_terminal; /* the first descriptor is a terminal's master */
    uint16_t zero;
    struct wire_warning warnings[MAX_WARNINGS];
    struct wire_mark marks[MAX_MARKS];
};

struct interpreter {
    const struct plan *plan;
    int report_fd;
    int index; /* of the running operation */
    int slots[MAX_SLOTS];
    int sent[MAX_SENT_FDS];
    unsigned sent_count;
    int terminal;      /* master of the last terminal made, a duplicate; -1: none */
    bool keep_terminal; /* it goes to the monitor */
    bool no_new_privs;
    mode_t mask;
    const struct plan_op *filter; /* seccomp, put off until just before exec */
    int filter_index;
    struct report report;
};

/* Where a path is resolved: below a slot and never leaving it, or on the host. */
struct place {
    int fd;
    uint64_t resolve;
};

enum entry_kind { ENTRY_DIRECTORY, ENTRY_FILE };

/* Runs the plan. Returns only by exec or _exit. */
_Noreturn void interpret(struct interpreter *in);
void warn_of(struct interpreter *in, int error);

int slot_fd(const struct interpreter *in, int slot);
void slot_set(struct interpreter *in, int slot, int fd); /* takes `fd`, closes what was there */
struct place place_of(const struct interpreter *in, int at);

/* paths.c: descriptors or -1 with errno; every path may be hostile. */
int path_open(struct place place, const char *path, uint64_t flags, uint64_t extra_resolve);
int path_open_parent(struct place place, const char *path, const char **name);
int path_make(struct place place, const char *path, enum entry_kind kind, mode_t mode, bool *created);

/* Handlers return 0 or an errno. */
typedef int handler(struct interpreter *in, const struct plan_op *op);
handler do_root_propagation, do_open_tree, do_filesystem, do_mount_setattr, do_move_mount, do_mask, do_read_only,
    do_pivot_root;                                                             /* mounts.c */
handler do_overlay;                                                            /* overlay.c */
handler do_mkdir, do_symlink, do_mknod, do_write_file, do_open_path, do_chdir; /* files.c */
handler do_credentials, do_set_rlimit, do_no_new_privs, do_seccomp, do_session_keyring; /* privileges.c */
handler do_pty;                                                                /* terminal.c */
handler do_exec;                                                               /* exec.c */
void adopt_stdio(uid_t uid);                                                   /* privileges.c */

#endif
