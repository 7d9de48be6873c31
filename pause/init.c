/* The pause process: PID 1 of a pod. It holds the pod's namespaces open and reaps what is orphaned in them.
 *
 * In a shared PID namespace containers see it, so there is nothing in it to steal: no descriptor, no capability (the
 * plan took them), no memory worth reading, no system call but the four it lives on. */
#define _GNU_SOURCE
#include "init.h"

#include <errno.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "sys.h"

#if defined(__x86_64__)
#define THIS_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCH AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define THIS_ARCH AUDIT_ARCH_RISCV64
#else
#error "add the audit architecture of this machine"
#endif

#define ALLOW(name)                                                                                                    \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (name), 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

static int lock_in(void)
{
    static struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCH, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(SYS_rt_sigtimedwait),
        ALLOW(SYS_waitid),
        ALLOW(SYS_restart_syscall),
        ALLOW(SYS_exit_group),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    const struct sock_fprog program = {.len = sizeof filter / sizeof filter[0], .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -1;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

int init_main(void)
{
    sigset_t wanted;
    bool first = getpid() == 1;
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    prctl(PR_SET_NAME, "pause");
    /* Blocked, not ignored: a signal whose action is "default" is never even queued for a PID 1. */
    (void)sys_block_all_signals();
    sys_close_range(0, UINT_MAX, 0);
    if (lock_in() < 0)
        return 1;
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGCHLD);
    sigaddset(&wanted, SIGTERM);
    sigaddset(&wanted, SIGINT);
    for (;;) {
        siginfo_t info = {0};
        int number = sigwaitinfo(&wanted, &info);
        if (number == SIGCHLD) {
            /* One signal may stand for many children. */
            while (info.si_pid = 0, waitid(P_ALL, 0, &info, WEXITED | WNOHANG) == 0 && info.si_pid != 0)
                ;
        } else if (number > 0 && (!first || info.si_pid == 0)) {
            return 0; /* si_pid 0: sent from outside of the pod. Its own processes cannot end it. */
        }
    }
}
