/* Runs a plan, operation by operation, and tells the monitor how it went. */
#define _GNU_SOURCE
#include "interpret.h"

#include <errno.h>
#include <linux/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>

#include "fds.h"
#include "sys.h"

int sethostname(const char *name, size_t length);

int slot_fd(const struct interpreter *in, int slot)
{
    return slot == NONE ? -1 : in->slots[slot];
}

void slot_set(struct interpreter *in, int slot, int fd)
{
    if (in->slots[slot] >= 0)
        close(in->slots[slot]);
    in->slots[slot] = fd;
}

void warn_of(struct interpreter *in, int error)
{
    if (in->report.warning_count < MAX_WARNINGS)
        in->report.warnings[in->report.warning_count++] =
            (struct wire_warning){.op_index = (uint32_t)in->index, .error = (uint32_t)error};
}

/* ---- operations of one system call ---- */

static int do_join_cgroup(struct interpreter *in, const struct plan_op *op)
{
    int fd = open(plan_string(in->plan, op, 0), O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int error = write(fd, "0", 1) < 0 ? errno : 0;
    close(fd);
    return error;
}

static int do_setns(struct interpreter *in, const struct plan_op *op)
{
    return setns(slot_fd(in, op->fd), (int)op->a) < 0 ? errno : 0;
}

static int do_unshare(struct interpreter *in, const struct plan_op *op)
{
    (void)in;
    return unshare((int)op->a) < 0 ? errno : 0;
}

static int do_hostname(struct interpreter *in, const struct plan_op *op)
{
    return sethostname(plan_string(in->plan, op, 0), op->strings[0].length) < 0 ? errno : 0;
}

static int do_setsid(struct interpreter *in, const struct plan_op *op)
{
    (void)in;
    (void)op;
    return setsid() < 0 ? errno : 0;
}

static int do_umask(struct interpreter *in, const struct plan_op *op)
{
    in->mask = (mode_t)op->a & 0777; /* in force from exec on: until then modes are exact */
    return 0;
}

static int do_dup(struct interpreter *in, const struct plan_op *op)
{
    return dup2(slot_fd(in, op->fd), (int)op->a) < 0 ? errno : 0;
}

static int do_send_fd(struct interpreter *in, const struct plan_op *op)
{
    if (in->sent_count == MAX_SENT_FDS)
        return EMFILE;
    int fd = fcntl(slot_fd(in, op->fd), F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return errno;
    in->sent[in->sent_count++] = fd;
    return 0;
}

static int do_socket(struct interpreter *in, const struct plan_op *op)
{
    int fd = socket((int)op->a, (int)op->b | SOCK_CLOEXEC, (int)op->c);
    if (fd < 0)
        return errno;
    slot_set(in, op->fd, fd);
    return 0;
}

static int do_loopback_up(struct interpreter *in, const struct plan_op *op)
{
    (void)in;
    (void)op;
    struct ifreq request = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    int error = 0;
    if (ioctl(fd, SIOCGIFFLAGS, &request) < 0) {
        error = errno;
    } else {
        request.ifr_flags = (short)(request.ifr_flags | IFF_UP);
        if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
            error = errno;
    }
    close(fd);
    return error;
}

static int do_close(struct interpreter *in, const struct plan_op *op)
{
    if (slot_fd(in, op->fd) < 0)
        return EBADF;
    slot_set(in, op->fd, -1);
    return 0;
}

static int do_mark(struct interpreter *in, const struct plan_op *op)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (in->report.mark_count < MAX_MARKS)
        in->report.marks[in->report.mark_count++] = (struct wire_mark){
            .number = op->a, .monotonic_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec};
    return 0;
}

static handler *const handlers[OP_CODE_END] = {
    [OP_JOIN_CGROUP] = do_join_cgroup,
    [OP_SETNS] = do_setns,
    [OP_UNSHARE] = do_unshare,
    [OP_ROOT_PROPAGATION] = do_root_propagation,
    [OP_OPEN_TREE] = do_open_tree,
    [OP_OVERLAY] = do_overlay,
    [OP_FILESYSTEM] = do_filesystem,
    [OP_MOUNT_SETATTR] = do_mount_setattr,
    [OP_MOVE_MOUNT] = do_move_mount,
    [OP_MKDIR] = do_mkdir,
    [OP_SYMLINK] = do_symlink,
    [OP_MKNOD] = do_mknod,
    [OP_WRITE_FILE] = do_write_file,
    [OP_MASK] = do_mask,
    [OP_READ_ONLY] = do_read_only,
    [OP_OPEN_PATH] = do_open_path,
    [OP_PIVOT_ROOT] = do_pivot_root,
    [OP_HOSTNAME] = do_hostname,
    [OP_SET_RLIMIT] = do_set_rlimit,
    [OP_CREDENTIALS] = do_credentials,
    [OP_NO_NEW_PRIVS] = do_no_new_privs,
    [OP_SECCOMP] = do_seccomp,
    [OP_CHDIR] = do_chdir,
    [OP_SETSID] = do_setsid,
    [OP_UMASK] = do_umask,
    [OP_EXEC] = do_exec,
    [OP_DUP] = do_dup,
    [OP_PTY] = do_pty,
    [OP_SEND_FD] = do_send_fd,
    [OP_SOCKET] = do_socket,
    [OP_LOOPBACK_UP] = do_loopback_up,
    [OP_SESSION_KEYRING] = do_session_keyring,
    [OP_CLOSE] = do_close,
    [OP_MARK] = do_mark,
};

/* One packet; the descriptors go with the first that says all is well. */
static void send_report(struct interpreter *in)
{
    int fds[MAX_SENT_FDS + 1];
    unsigned count = 0;
    if (in->report.failed == 0) {
        if (in->terminal >= 0)
            fds[count++] = in->terminal;
        in->report.has_terminal = in->terminal >= 0;
        for (unsigned i = 0; i < in->sent_count; i++)
            fds[count++] = in->sent[i];
    }
    /* A monitor that is gone needs no answer; the process goes on without it. */
    while (send_with_fds(in->report_fd, &in->report, sizeof in->report, fds, count, 0) < 0 && errno == EINTR)
        ;
}

_Noreturn static void fail(struct interpreter *in, int error)
{
    in->report.failed = 1;
    in->report.error = error;
    in->report.op_index = in->index;
    send_report(in);
    _exit(127);
}

_Noreturn void interpret(struct interpreter *in)
{
    umask(0);
    for (in->index = 0; in->index < in->plan->header->op_count; in->index++) {
        const struct plan_op *op = &in->plan->ops[in->index];
        /* Sent before and not after: a successful exec has nobody left to tell, the socket just closes. */
        if (op->code == OP_EXEC)
            send_report(in);
        int error = handlers[op->code](in, op);
        if (error == 0)
            continue;
        if ((op->flags & FLAG_OPTIONAL) == 0)
            fail(in, error);
        warn_of(in, error);
    }
    fail(in, ENOEXEC); /* not reached: a decoded plan ends with exec */
}
