/* The overlay of a container's root.
 *
 * Since Linux 6.5 each layer is its own option ("lowerdir+") of a detached mount. Before that there is only mount(2),
 * one page of options and an attached mount: it is made in a mount namespace nobody else sees, with paths relative to
 * the layers' common directory, and cloned out of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "interpret.h"
#include "sys.h"
#include "text.h"

#define OPTION_BYTES 256 /* fsconfig(2) copies no longer string, the NUL included */
#define MOUNT_OPTIONS 4096
#define SPECIAL ":,\\" /* what overlay splits its options at */

/* A path as an option, by way of a descriptor when it is too long to be one. */
static int set_path(int fs, const char *key, const char *path)
{
    if (strlen(path) < OPTION_BYTES)
        return sys_fsconfig(fs, FSCONFIG_SET_STRING, key, path, 0);
    char link[32];
    struct text name = TEXT(link);
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    text_add(&name, "/proc/self/fd/");
    text_add_number(&name, (uint64_t)fd);
    int result = sys_fsconfig(fs, FSCONFIG_SET_STRING, key, link, 0);
    int error = errno;
    close(fd);
    errno = error;
    return result;
}

/* *old_kernel: refused because the kernel does not know this way. */
static int by_descriptor(const struct plan *plan, const struct plan_op *op, bool *old_kernel)
{
    const char *lower = plan_string(plan, op, 0);
    const char *upper = plan_string(plan, op, 1);
    const char *work = plan_string(plan, op, 2);
    *old_kernel = false;
    int fs = sys_fsopen("overlay", FSOPEN_CLOEXEC);
    if (fs < 0) {
        *old_kernel = errno == ENOSYS;
        return -1;
    }
    int result = sys_fsconfig(fs, FSCONFIG_SET_STRING, "source", "overlay", 0); /* what /proc/mounts says first */
    for (uint64_t i = 0; result == 0 && i < op->a; i++, lower = next_item(lower)) {
        result = set_path(fs, "lowerdir+", lower);
        *old_kernel = result < 0 && i == 0 && errno == EINVAL;
    }
    if (result == 0 && upper != NULL)
        result = set_path(fs, "upperdir", upper);
    if (result == 0 && work != NULL)
        result = set_path(fs, "workdir", work);
    if (result == 0 && (op->flags & OVERLAY_VOLATILE) != 0)
        result = sys_fsconfig(fs, FSCONFIG_SET_FLAG, "volatile", NULL, 0);
    if (result == 0) {
        result = sys_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
        /* Before Linux 6.5 overlay looks at its options only now. Where the fault is another, mount(2) finds it too. */
        *old_kernel = result < 0 && errno == EINVAL;
    }
    if (result == 0)
        result = sys_fsmount(fs, FSMOUNT_CLOEXEC, (unsigned)op->b);
    int error = errno;
    close(fs);
    errno = error;
    return result;
}

/* Length of the longest directory, "/" included, that all `count` paths begin with. */
static size_t common_directory(const char *paths, uint64_t count)
{
    size_t length = strlen(paths);
    const char *path = paths;
    for (uint64_t i = 0; i < count; i++, path = next_item(path)) {
        size_t same = 0;
        while (same < length && path[same] == paths[same])
            same++;
        length = same;
    }
    while (length > 0 && paths[length - 1] != '/')
        length--;
    return length;
}

/* In the private mount namespace: mount at the common directory, clone, forget. */
static int attached_clone(const struct plan *plan, const struct plan_op *op)
{
    char directory[PATH_MAX];
    char options[MOUNT_OPTIONS];
    struct text data = TEXT(options);
    const char *lower = plan_string(plan, op, 0);
    size_t prefix = common_directory(lower, op->a);
    if (prefix == 0 || prefix >= sizeof directory) {
        errno = EINVAL;
        return -1;
    }
    memcpy(directory, lower, prefix);
    directory[prefix] = '\0';
    text_add(&data, "lowerdir=");
    for (uint64_t i = 0; i < op->a; i++, lower = next_item(lower)) {
        text_add(&data, i > 0 ? ":" : "");
        text_add_escaped(&data, lower[prefix] != '\0' ? lower + prefix : ".", SPECIAL);
    }
    if (plan_string(plan, op, 1) != NULL) {
        text_add(&data, ",upperdir=");
        text_add_escaped(&data, plan_string(plan, op, 1), SPECIAL);
        text_add(&data, ",workdir=");
        text_add_escaped(&data, plan_string(plan, op, 2), SPECIAL);
    }
    if ((op->flags & OVERLAY_VOLATILE) != 0)
        text_add(&data, ",volatile");
    if (data.truncated) {
        errno = E2BIG;
        return -1;
    }
    if (sys_mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || chdir(directory) < 0 ||
        sys_mount("overlay", directory, "overlay", 0, options) < 0)
        return -1;
    int fd = sys_open_tree(AT_FDCWD, directory, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    const struct mount_attr attr = {.attr_set = op->b & ~(uint64_t)MOUNT_ATTR__ATIME};
    if (fd >= 0 && sys_mount_setattr(fd, "", AT_EMPTY_PATH, &attr) < 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static int by_mount(const struct plan *plan, const struct plan_op *op)
{
    int home = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    if (home < 0)
        return -1;
    int fd = unshare(CLONE_NEWNS) < 0 ? -1 : attached_clone(plan, op);
    int error = errno;
    if (setns(home, CLONE_NEWNS) < 0 && fd >= 0) {
        error = errno;
        close(fd);
        fd = -1;
    }
    close(home);
    errno = error;
    return fd;
}

int do_overlay(struct interpreter *in, const struct plan_op *op)
{
    bool old_kernel;
    int fd = by_descriptor(in->plan, op, &old_kernel);
    if (fd < 0 && old_kernel)
        fd = by_mount(in->plan, op);
    if (fd < 0)
        return errno;
    slot_set(in, op->fd, fd);
    return 0;
}
