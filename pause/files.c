/* Operations on directories, nodes and files. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "interpret.h"
#include "sys.h"

/* Runs with a descriptor and closes it without losing the error. */
static int closing(int fd, int result)
{
    int error = result < 0 ? errno : 0;
    close(fd);
    return error;
}

int do_mkdir(struct interpreter *in, const struct plan_op *op)
{
    bool created;
    struct stat status;
    mode_t mode = (mode_t)op->a & 07777;
    int fd = path_make(place_of(in, op->at), plan_string(in->plan, op, 0), ENTRY_DIRECTORY, mode, &created);
    if (fd < 0)
        return errno;
    int result = fstat(fd, &status);
    if (result == 0 && !S_ISDIR(status.st_mode)) {
        errno = ENOTDIR;
        result = -1;
    }
    if (result == 0 && created && (op->b != 0 || op->c != 0))
        result = fchownat(fd, "", (uid_t)op->b, (gid_t)op->c, AT_EMPTY_PATH);
    if (result == 0 && created && (mode & 07000) != 0) {
        /* mkdir(2) ignores the set-id bits, and chown may clear them. */
        int readable = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        result = readable < 0 ? -1 : fchmod(readable, mode);
        if (readable >= 0)
            close(readable);
    }
    return closing(fd, result);
}

int do_symlink(struct interpreter *in, const struct plan_op *op)
{
    const char *name;
    int parent = path_open_parent(place_of(in, op->at), plan_string(in->plan, op, 0), &name);
    if (parent < 0)
        return errno;
    int error = closing(parent, symlinkat(plan_string(in->plan, op, 1), parent, name));
    return error == EEXIST ? 0 : error;
}

int do_mknod(struct interpreter *in, const struct plan_op *op)
{
    const char *name;
    uid_t uid = (uid_t)(op->c >> 32);
    gid_t gid = (gid_t)(op->c & UINT32_MAX);
    int parent = path_open_parent(place_of(in, op->at), plan_string(in->plan, op, 0), &name);
    if (parent < 0)
        return errno;
    int result = mknodat(parent, name, (mode_t)op->a, (dev_t)op->b);
    if (result == 0 && (uid != 0 || gid != 0))
        result = fchownat(parent, name, uid, gid, AT_SYMLINK_NOFOLLOW);
    return closing(parent, result);
}

int do_write_file(struct interpreter *in, const struct plan_op *op)
{
    struct place place = place_of(in, op->at);
    const char *path = plan_string(in->plan, op, 0);
    /* O_NONBLOCK: a FIFO that a container left there must not hold us. */
    const int flags = O_WRONLY | O_NOCTTY | O_NONBLOCK;
    int fd = -1;
    if ((op->flags & WRITE_FILE_CREATE) == 0) {
        fd = path_open(place, path, (uint64_t)flags, 0);
    } else {
        fd = path_open(place, path, (uint64_t)flags | O_TRUNC, 0);
        if (fd < 0 && errno == ENOENT) {
            const char *name;
            int parent = path_open_parent(place, path, &name);
            if (parent < 0)
                return errno;
            fd = openat(parent, name, flags | O_CREAT | O_EXCL | O_CLOEXEC, (mode_t)op->a & 07777);
            int error = errno;
            close(parent);
            errno = error;
        }
    }
    if (fd < 0)
        return errno;
    size_t length = op->strings[1].length;
    ssize_t written = write(fd, plan_string(in->plan, op, 1), length);
    if (written >= 0 && (size_t)written != length) {
        errno = ENOSPC;
        written = -1;
    }
    return closing(fd, written < 0 ? -1 : 0);
}

int do_open_path(struct interpreter *in, const struct plan_op *op)
{
    if ((op->a & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) != 0)
        return EINVAL;
    uint64_t flags = (op->a & O_PATH) != 0 ? op->a : op->a | O_NOCTTY;
    int fd = path_open(place_of(in, op->at), plan_string(in->plan, op, 0), flags, 0);
    if (fd < 0)
        return errno;
    slot_set(in, op->fd, fd);
    return 0;
}

int do_chdir(struct interpreter *in, const struct plan_op *op)
{
    char where[PATH_MAX];
    /* An image may name /proc/self/fd/N or alike as its working directory (CVE-2024-21626). */
    const struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_NO_MAGICLINKS};
    int fd = sys_openat2(AT_FDCWD, plan_string(in->plan, op, 0), &how);
    if (fd < 0)
        return errno;
    int error = fchdir(fd) < 0 ? errno : 0;
    close(fd);
    if (error != 0)
        return error;
    /* Outside of the root the kernel's answer begins with "(unreachable)". */
    if (syscall(SYS_getcwd, where, sizeof where) < 0)
        return errno;
    return where[0] == '/' ? 0 : EXDEV;
}
