/* System calls that the C library does not wrap, under the kernel's names. Each returns -1 and sets errno. */
#ifndef PAUSE_SYS_H
#define PAUSE_SYS_H

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MNT_DETACH 2 /* <sys/mount.h> and <linux/mount.h> do not go together */

int unshare(int flags);
int setns(int fd, int flags);

static inline int sys_openat2(int at, const char *path, const struct open_how *how)
{
    return (int)syscall(SYS_openat2, at, path, how, sizeof *how);
}

static inline int sys_open_tree(int at, const char *path, unsigned flags)
{
    return (int)syscall(SYS_open_tree, at, path, flags);
}

static inline int sys_move_mount(int from, const char *from_path, int to, const char *to_path, unsigned flags)
{
    return (int)syscall(SYS_move_mount, from, from_path, to, to_path, flags);
}

static inline int sys_mount_setattr(int at, const char *path, unsigned flags, const struct mount_attr *attr)
{
    return (int)syscall(SYS_mount_setattr, at, path, flags, attr, sizeof *attr);
}

static inline int sys_fsopen(const char *fstype, unsigned flags)
{
    return (int)syscall(SYS_fsopen, fstype, flags);
}

static inline int sys_fsconfig(int fs, unsigned command, const char *key, const void *value, int aux)
{
    return (int)syscall(SYS_fsconfig, fs, command, key, value, aux);
}

static inline int sys_fsmount(int fs, unsigned flags, unsigned attr_flags)
{
    return (int)syscall(SYS_fsmount, fs, flags, attr_flags);
}

static inline int sys_mount(const char *source, const char *target, const char *fstype, unsigned long flags,
                            const void *data)
{
    return (int)syscall(SYS_mount, source, target, fstype, flags, data);
}

static inline int sys_umount2(const char *target, int flags)
{
    return (int)syscall(SYS_umount2, target, flags);
}

static inline int sys_pivot_root(const char *new_root, const char *put_old)
{
    return (int)syscall(SYS_pivot_root, new_root, put_old);
}

static inline int sys_close_range(unsigned first, unsigned last, unsigned flags)
{
    return (int)syscall(SYS_close_range, first, last, flags);
}

static inline int sys_execve(const char *path, const char *const *argv, const char *const *env)
{
    return (int)syscall(SYS_execve, path, argv, env);
}

static inline int sys_execveat(int fd, const char *path, const char *const *argv, const char *const *env, int flags)
{
    return (int)syscall(SYS_execveat, fd, path, argv, env, flags);
}

static inline int sys_clone3(struct clone_args *args)
{
    return (int)syscall(SYS_clone3, args, sizeof *args);
}

/* Two calls past the C library, which keeps signals 32 to 34 for itself and lets nobody touch them. */
static inline int sys_block_all_signals(void)
{
    const uint64_t all = UINT64_MAX;
    return (int)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof all);
}

static inline int sys_default_action(int signal)
{
    const uint64_t action[4] = {0}; /* struct sigaction of the kernel: SIG_DFL, no flags */
    return (int)syscall(SYS_rt_sigaction, signal, action, NULL, sizeof(uint64_t));
}

/* On 64-bit machines struct rlimit is the kernel's own. */
static inline int sys_prlimit(int resource, const struct rlimit *limit)
{
    return (int)syscall(SYS_prlimit64, 0, resource, limit, NULL);
}

static inline int sys_pidfd_send_signal(int pidfd, int signal)
{
    return (int)syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0);
}

#endif
