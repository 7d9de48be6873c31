/* The terminal of a container. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/magic.h>
#include <linux/tty.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

#include "interpret.h"
#include "sys.h"

/* The multiplexer of the devpts at dev/pts. A container may have put anything there, so what was opened is looked at
 * (and opened so that a FIFO does not block). */
static int open_multiplexer(struct place place)
{
    struct stat status;
    struct statfs where;
    int fd = path_open(place, "/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK, RESOLVE_NO_SYMLINKS);
    if (fd < 0)
        return -1;
    if (fstat(fd, &status) == 0 && fstatfs(fd, &where) == 0 && S_ISCHR(status.st_mode) &&
        status.st_rdev == makedev(5, 2) && where.f_type == DEVPTS_SUPER_MAGIC)
        return fd;
    close(fd);
    errno = ENODEV;
    return -1;
}

/* The terminal at dev/console: bound by descriptor, onto a path without links (CVE-2025-52565). */
static int bind_console(struct place place, int peer)
{
    bool created;
    place.resolve |= RESOLVE_NO_SYMLINKS;
    int target = path_make(place, "/dev/console", ENTRY_FILE, 0600, &created);
    if (target < 0)
        return errno;
    int tree = sys_open_tree(peer, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    int error = tree < 0 ? errno : 0;
    if (tree >= 0) {
        if (sys_move_mount(tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
            error = errno;
        close(tree);
    }
    close(target);
    return error;
}

static int become_terminal(int peer, const struct plan_op *op)
{
    const struct winsize size = {.ws_row = (unsigned short)op->a, .ws_col = (unsigned short)op->b};
    if (size.ws_row != 0 && ioctl(peer, TIOCSWINSZ, &size) < 0)
        return errno;
    if (fchown(peer, (uid_t)op->c, (gid_t)-1) < 0)
        return errno;
    (void)setsid(); /* EPERM: the plan did it */
    if (ioctl(peer, TIOCSCTTY, 0) < 0)
        return errno;
    for (int fd = 0; fd <= 2; fd++)
        if (dup2(peer, fd) < 0)
            return errno;
    return 0;
}

int do_pty(struct interpreter *in, const struct plan_op *op)
{
    struct place place = place_of(in, op->at);
    const int unlocked = 0;
    int error = 0;
    int master = open_multiplexer(place);
    if (master < 0)
        return errno;
    int peer = -1;
    if (ioctl(master, TIOCSPTLCK, &unlocked) < 0 ||
        (peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0)
        error = errno;
    if (error == 0 && (op->flags & PTY_CONSOLE) != 0)
        error = bind_console(place, peer);
    if (error == 0)
        error = become_terminal(peer, op);
    if (peer >= 0)
        close(peer);
    if (error == 0 && in->keep_terminal) {
        if (in->terminal >= 0)
            close(in->terminal);
        in->terminal = fcntl(master, F_DUPFD_CLOEXEC, 3);
        if (in->terminal < 0)
            error = errno;
    }
    if (error != 0) {
        close(master);
        return error;
    }
    slot_set(in, op->fd, master);
    return 0;
}
