/* Operations on mounts, all on descriptors: a mount is made detached, given its attributes, then moved to a place
 * that was opened beneath the container's root. No path is looked at twice. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "interpret.h"
#include "sys.h"

#define MOVE_DESCRIPTORS (MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)

int do_root_propagation(struct interpreter *in, const struct plan_op *op)
{
    (void)in;
    return sys_mount(NULL, "/", NULL, op->a, NULL) < 0 ? errno : 0;
}

int do_open_tree(struct interpreter *in, const struct plan_op *op)
{
    struct place place = place_of(in, op->at);
    const char *sub_path = plan_string(in->plan, op, 1);
    int base = path_open(place, plan_string(in->plan, op, 0), O_PATH, 0);
    if (base >= 0 && sub_path != NULL) {
        /* Beneath, not in-root: a link that leaves the volume is refused, not bent. */
        struct place volume = {.fd = base, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
        int below = path_open(volume, sub_path, O_PATH, 0);
        int error = errno;
        close(base);
        errno = error;
        base = below;
    }
    if (base < 0)
        return errno;
    int fd = sys_open_tree(base, "", (unsigned)op->a | AT_EMPTY_PATH | OPEN_TREE_CLOEXEC);
    int error = errno;
    close(base);
    if (fd < 0)
        return error;
    slot_set(in, op->fd, fd);
    return 0;
}

/* "key=value" or "flag". */
static int set_option(int fs, const char *option)
{
    char key[64];
    const char *equals = strchr(option, '=');
    if (equals == NULL)
        return sys_fsconfig(fs, FSCONFIG_SET_FLAG, option, NULL, 0);
    size_t length = (size_t)(equals - option);
    if (length >= sizeof key) {
        errno = EINVAL;
        return -1;
    }
    memcpy(key, option, length);
    key[length] = '\0';
    return sys_fsconfig(fs, FSCONFIG_SET_STRING, key, equals + 1, 0);
}

/* A new file system, mounted nowhere. `options`: `count` strings, each ended by NUL. */
static int new_filesystem(const char *fstype, const char *source, const char *options, uint64_t count, unsigned attr)
{
    int fs = sys_fsopen(fstype, FSOPEN_CLOEXEC);
    if (fs < 0)
        return -1;
    int result = source != NULL ? sys_fsconfig(fs, FSCONFIG_SET_STRING, "source", source, 0) : 0;
    for (uint64_t i = 0; result == 0 && i < count; i++, options = next_item(options))
        result = set_option(fs, options);
    if (result == 0)
        result = sys_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
    if (result == 0)
        result = sys_fsmount(fs, FSMOUNT_CLOEXEC, attr);
    int error = errno;
    close(fs);
    errno = error;
    return result;
}

int do_filesystem(struct interpreter *in, const struct plan_op *op)
{
    int fd = new_filesystem(plan_string(in->plan, op, 0), plan_string(in->plan, op, 2), plan_string(in->plan, op, 1),
                            op->a, (unsigned)op->b);
    if (fd < 0)
        return errno;
    slot_set(in, op->fd, fd);
    return 0;
}

int do_mount_setattr(struct interpreter *in, const struct plan_op *op)
{
    const struct mount_attr attr = {
        .attr_set = op->a,
        .attr_clr = op->b,
        .propagation = op->c,
        .userns_fd = op->at == NONE ? 0 : (__u64)slot_fd(in, op->at),
    };
    if (slot_fd(in, op->fd) < 0 || (op->at != NONE && slot_fd(in, op->at) < 0))
        return EBADF; /* the kernel does not look at the descriptor when nothing changes */
    unsigned flags = AT_EMPTY_PATH | ((op->flags & MOUNT_SETATTR_RECURSIVE) != 0 ? AT_RECURSIVE : 0);
    return sys_mount_setattr(slot_fd(in, op->fd), "", flags, &attr) < 0 ? errno : 0;
}

int do_move_mount(struct interpreter *in, const struct plan_op *op)
{
    struct place place = place_of(in, op->at);
    const char *path = plan_string(in->plan, op, 0);
    bool created;
    if ((op->flags & MOVE_MOUNT_PLAIN_PATH) != 0)
        place.resolve |= RESOLVE_NO_SYMLINKS;
    int target;
    if ((op->flags & MOVE_MOUNT_CREATE_DIR) != 0)
        target = path_make(place, path, ENTRY_DIRECTORY, 0755, &created);
    else if ((op->flags & MOVE_MOUNT_CREATE_FILE) != 0)
        target = path_make(place, path, ENTRY_FILE, 0644, &created);
    else
        target = path_open(place, path, O_PATH, 0);
    if (target < 0)
        return errno;
    int result = sys_move_mount(slot_fd(in, op->fd), "", target, "", MOVE_DESCRIPTORS);
    int error = errno;
    close(target);
    return result < 0 ? error : 0;
}

static int move_onto(int mount, int target)
{
    if (mount < 0)
        return errno;
    int error = sys_move_mount(mount, "", target, "", MOVE_DESCRIPTORS) < 0 ? errno : 0;
    close(mount);
    return error;
}

int do_mask(struct interpreter *in, const struct plan_op *op)
{
    struct stat status;
    int device = slot_fd(in, op->fd);
    /* A container that can put something else at /dev/null would choose what hides the path (CVE-2025-31133). */
    if (fstat(device, &status) < 0)
        return errno;
    if (!S_ISCHR(status.st_mode) || status.st_rdev != makedev(1, 3))
        return EXDEV;
    int target = path_open(place_of(in, op->at), plan_string(in->plan, op, 0), O_PATH, RESOLVE_NO_SYMLINKS);
    if (target < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : errno;
    int error;
    if (fstat(target, &status) < 0)
        error = errno;
    else if (S_ISDIR(status.st_mode))
        error = move_onto(new_filesystem("tmpfs", NULL, "mode=0555\0size=4096", 2,
                                         MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC),
                          target);
    else
        error = move_onto(sys_open_tree(device, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH), target);
    close(target);
    return error;
}

int do_read_only(struct interpreter *in, const struct plan_op *op)
{
    const struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    int target = path_open(place_of(in, op->at), plan_string(in->plan, op, 0), O_PATH, RESOLVE_NO_SYMLINKS);
    if (target < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : errno;
    int error;
    int tree = sys_open_tree(target, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_EMPTY_PATH);
    if (tree >= 0 && sys_mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr) < 0) {
        error = errno;
        close(tree);
    } else {
        error = move_onto(tree, target);
    }
    close(target);
    return error;
}

int do_pivot_root(struct interpreter *in, const struct plan_op *op)
{
    /* pivot_root(2), "pivot_root(".", ".")": the old root lies on the new one until it is detached. */
    if (fchdir(slot_fd(in, op->fd)) < 0 || sys_pivot_root(".", ".") < 0 || sys_umount2(".", MNT_DETACH) < 0 ||
        chdir("/") < 0)
        return errno;
    return 0;
}
