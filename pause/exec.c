/* The last operation. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/close_range.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "interpret.h"
#include "sys.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static const char *path_of(const char *const *env)
{
    for (; *env != NULL; env++)
        if (strncmp(*env, "PATH=", 5) == 0)
            return *env + 5;
    return DEFAULT_PATH;
}

/* Looks `name` up as execvp(3) does: what cannot be executed is remembered, and the search goes on. */
static int exec_on_path(const char *name, const char *path, const char *const *argv, const char *const *env)
{
    char file[PATH_MAX];
    size_t name_length = strlen(name);
    bool denied = false;
    for (;;) {
        size_t length = strcspn(path, ":");
        if (length + 1 + name_length < sizeof file) {
            memcpy(file, path, length);
            file[length] = '/';
            memcpy(file + length + (length > 0), name, name_length + 1); /* an empty entry: here */
            sys_execve(file, argv, env);
            if (errno == EACCES)
                denied = true;
            else if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP && errno != ENAMETOOLONG)
                return errno;
        }
        if (path[length] == '\0')
            return denied ? EACCES : ENOENT;
        path += length + 1;
    }
}

static void fill(const char **array, uint64_t count, const char *strings)
{
    for (uint64_t i = 0; i < count; i++, strings = next_item(strings))
        array[i] = strings;
    array[count] = NULL;
}

int do_exec(struct interpreter *in, const struct plan_op *op)
{
    size_t bytes = (op->a + op->b + 2) * sizeof(char *);
    const char **argv = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (argv == MAP_FAILED)
        return errno;
    const char **env = argv + op->a + 1;
    fill(argv, op->a, plan_string(in->plan, op, 0));
    fill(env, op->b, plan_string(in->plan, op, 1));
    if (argv[0][0] == '\0' && op->fd == NONE)
        return ENOENT;
    /* Nothing of ours goes on into the container: not a slot, not the monitor's socket. */
    if (sys_close_range(3, UINT_MAX, CLOSE_RANGE_CLOEXEC) < 0)
        return errno;
    umask(in->mask);
    if (in->filter != NULL) {
        int exec_index = in->index;
        in->index = in->filter_index;
        int error = do_seccomp(in, in->filter);
        if (error != 0)
            return error;
        in->index = exec_index;
    }
    if (op->fd != NONE)
        sys_execveat(slot_fd(in, op->fd), "", argv, env, AT_EMPTY_PATH);
    else if (strchr(argv[0], '/') != NULL)
        sys_execve(argv[0], argv, env);
    else
        return exec_on_path(argv[0], path_of(env), argv, env);
    return errno;
}
