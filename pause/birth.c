/* Children are born here: clone3 in the right namespaces, then the child cleans itself up and runs its plan. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "monitor.h"
#include "sys.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

#define NAMESPACES                                                                                                     \
    ((uint64_t)(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID |            \
                CLONE_NEWNET | CLONE_NEWTIME))

/* Closes every descriptor from 3 on that is not in `keep`: the child has copies of the monitor's own, other
 * containers' pipes among them. */
static void close_others(int *keep, unsigned count)
{
    for (unsigned i = 1; i < count; i++)
        for (unsigned j = i; j > 0 && keep[j - 1] > keep[j]; j--) {
            int swap = keep[j];
            keep[j] = keep[j - 1];
            keep[j - 1] = swap;
        }
    unsigned next = 3;
    for (unsigned i = 0; i < count; i++) {
        unsigned fd = (unsigned)keep[i];
        if (fd > next)
            sys_close_range(next, fd - 1, 0);
        if (fd >= next)
            next = fd + 1;
    }
    sys_close_range(next, UINT_MAX, 0);
}

/* What the monitor changed for itself and a container must not inherit. */
static void undo_privileges(const struct monitor *m)
{
    if (m->oom_adjusted) {
        int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
        if (fd >= 0) {
            (void)!write(fd, m->oom_score_adj, strlen(m->oom_score_adj));
            close(fd);
        }
    }
    (void)sys_prlimit(RLIMIT_NOFILE, &m->nofile);
}

_Noreturn static void child_main(const struct monitor *m, const struct birth *birth)
{
    struct interpreter in;
    int keep[MAX_SLOTS + 1];
    unsigned kept = 0;
    sigset_t none;
    memset(&in, 0, sizeof in);
    in.plan = birth->plan;
    in.report_fd = birth->report_fd;
    in.terminal = -1;
    in.keep_terminal = (birth->request->flags & RUN_TTY) != 0;
    in.mask = 022;
    undo_privileges(m);
    /* From here on no process of a shared PID namespace can look into this one (CVE-2019-5736, CVE-2024-21626). */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    for (int fd = 0; fd <= 2; fd++)
        if (birth->stdio[fd] >= 0 && dup2(birth->stdio[fd], fd) < 0)
            _exit(127);
    for (unsigned i = 0; i < MAX_SLOTS; i++)
        in.slots[i] = i < birth->slot_count ? birth->slots[i] : -1;
    for (unsigned i = 0; i < birth->slot_count; i++)
        keep[kept++] = birth->slots[i];
    keep[kept++] = birth->report_fd;
    close_others(keep, kept);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    interpret(&in);
}

/* setns(2) with CLONE_NEWPID moves only the children to come, so the monitor goes there for the time of one clone. */
static int come_home(struct monitor *m)
{
    if (m->strayed && setns(m->self_pidns, CLONE_NEWPID) < 0)
        return -1;
    m->strayed = false;
    return 0;
}

pid_t give_birth(struct monitor *m, const struct birth *birth, int *pidfd)
{
    const struct request *request = birth->request;
    struct clone_args args = {
        .flags = CLONE_PIDFD | request->clone_flags,
        .pidfd = (uint64_t)(uintptr_t)pidfd,
        .exit_signal = SIGCHLD,
    };
    if ((request->clone_flags & ~NAMESPACES) != 0) {
        errno = EINVAL;
        return -1;
    }
    if (come_home(m) < 0)
        return -1;
    if (request->cgroup_slot != NONE) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (__u64)birth->slots[request->cgroup_slot];
    }
    if (request->pidns_slot != NONE) {
        if (setns(birth->slots[request->pidns_slot], CLONE_NEWPID) < 0)
            return -1;
        m->strayed = true;
    }
    pid_t pid = sys_clone3(&args);
    if (pid == 0)
        child_main(m, birth);
    int error = errno;
    if (come_home(m) < 0)
        complain(m, "the monitor cannot return to its PID namespace", errno);
    errno = error;
    return pid;
}
