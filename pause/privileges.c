/* Operations that give up power: credentials, limits, seccomp. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "interpret.h"
#include "sys.h"

enum cap_set { BOUNDING, EFFECTIVE, PERMITTED, INHERITABLE, AMBIENT, CAP_SETS };

static int read_permitted(uint64_t *permitted)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) < 0)
        return -1;
    *permitted = (uint64_t)data[1].permitted << 32 | data[0].permitted;
    return 0;
}

static int write_capabilities(const uint64_t sets[CAP_SETS])
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    for (unsigned i = 0; i < 2; i++)
        data[i] = (struct __user_cap_data_struct){
            .effective = (uint32_t)(sets[EFFECTIVE] >> (32 * i)),
            .permitted = (uint32_t)(sets[PERMITTED] >> (32 * i)),
            .inheritable = (uint32_t)(sets[INHERITABLE] >> (32 * i)),
        };
    return (int)syscall(SYS_capset, &header, data);
}

/* The pipes that the monitor made belong to root; without this /dev/stdout could not be opened by the container's
 * user. Only pipes: everything else has an owner for a reason. */
void adopt_stdio(uid_t uid)
{
    for (int fd = 0; fd <= 2; fd++) {
        struct stat status;
        if (fstat(fd, &status) == 0 && S_ISFIFO(status.st_mode) && status.st_uid != uid)
            (void)fchown(fd, uid, (gid_t)-1);
    }
}

static int drop_bounding(uint64_t keep)
{
    for (unsigned cap = 0; cap < 64; cap++) {
        int held = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);
        if (held < 0)
            break; /* past the last one this kernel knows */
        if (held == 1 && (keep >> cap & 1) == 0 && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            return -1;
    }
    return 0;
}

static int raise_ambient(uint64_t ambient)
{
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return -1;
    for (unsigned cap = 0; cap < 64; cap++)
        if ((ambient >> cap & 1) != 0 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
            return -1;
    return 0;
}

/* Raw system calls: the C library's would tell other threads, and there are none. */
int do_credentials(struct interpreter *in, const struct plan_op *op)
{
    const uint64_t *asked = (const uint64_t *)(const void *)plan_string(in->plan, op, 1);
    const void *groups = plan_string(in->plan, op, 0);
    uint64_t sets[CAP_SETS];
    uint64_t have;
    bool less = false;
    if (read_permitted(&have) < 0)
        return errno;
    /* The host may not have everything to give (a runtime inside a container): give what there is and say so. */
    for (int i = 0; i < CAP_SETS; i++) {
        sets[i] = asked[i] & have;
        less = less || sets[i] != asked[i];
    }
    adopt_stdio((uid_t)op->a);
    if (drop_bounding(sets[BOUNDING]) < 0 || prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 ||
        syscall(SYS_setgroups, op->c, groups) < 0 || syscall(SYS_setresgid, op->b, op->b, op->b) < 0 ||
        syscall(SYS_setresuid, op->a, op->a, op->a) < 0 || write_capabilities(sets) < 0 ||
        raise_ambient(sets[AMBIENT]) < 0)
        return errno;
    /* Changing the user made the process dumpable again. */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return errno;
    if (less)
        warn_of(in, EPERM);
    return 0;
}

int do_set_rlimit(struct interpreter *in, const struct plan_op *op)
{
    struct {
        uint64_t soft, hard;
    } want = {op->b, op->c}, now;
    if (syscall(SYS_prlimit64, 0, op->a, &want, NULL) == 0)
        return 0;
    if (errno != EPERM || (op->flags & FLAG_OPTIONAL) == 0)
        return errno;
    if (syscall(SYS_prlimit64, 0, op->a, NULL, &now) < 0)
        return errno;
    want.hard = want.hard < now.hard ? want.hard : now.hard;
    want.soft = want.soft < want.hard ? want.soft : want.hard;
    if (syscall(SYS_prlimit64, 0, op->a, &want, NULL) < 0)
        return errno;
    warn_of(in, EPERM);
    return 0;
}

int do_no_new_privs(struct interpreter *in, const struct plan_op *op)
{
    (void)op;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return errno;
    in->no_new_privs = true;
    return 0;
}

static int load_filter(const struct plan *plan, const struct plan_op *op)
{
    const struct sock_fprog program = {
        .len = (unsigned short)(op->strings[0].length / sizeof(struct sock_filter)),
        .filter = (struct sock_filter *)(uintptr_t)plan_string(plan, op, 0),
    };
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, op->a, &program) < 0 ? errno : 0;
}

/* A filter that needs no privilege to load is loaded by exec as its last act, so that a strict profile does not have
 * to allow what this program does on the way. Without no_new_privs it needs CAP_SYS_ADMIN, so it is loaded here. */
int do_seccomp(struct interpreter *in, const struct plan_op *op)
{
    if (!in->no_new_privs || in->filter == op)
        return load_filter(in->plan, op);
    if (in->filter != NULL) {
        int error = load_filter(in->plan, in->filter);
        if (error != 0)
            return error;
    }
    in->filter = op;
    in->filter_index = in->index;
    return 0;
}

int do_session_keyring(struct interpreter *in, const struct plan_op *op)
{
    (void)in;
    (void)op;
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0)
        return errno == ENOSYS ? 0 : errno;
    return 0;
}
