/* Path resolution inside roots that somebody else may be changing at this moment.
 *
 * Every lookup is one openat2 with RESOLVE_IN_ROOT, so the kernel, not this code, keeps it inside. What has to be
 * made is made by mkdirat on a descriptor reached that way, so a lost race makes an entry somewhere in the same root,
 * never outside of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "interpret.h"
#include "sys.h"

#define MAX_LINKS 40
#define MAX_RACES 128

struct place place_of(const struct interpreter *in, int at)
{
    if (at == HOST)
        return (struct place){.fd = AT_FDCWD, .resolve = 0};
    return (struct place){.fd = slot_fd(in, at), .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
}

int path_open(struct place place, const char *path, uint64_t flags, uint64_t extra_resolve)
{
    if (place.resolve == 0 && path[0] != '/') {
        errno = EINVAL; /* the interpreter has no working directory anyone meant */
        return -1;
    }
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = place.resolve | extra_resolve};
    int fd = -1;
    /* EAGAIN: something was renamed during a walk with "..", the kernel could not be sure. */
    for (int i = 0; i < MAX_RACES; i++) {
        fd = sys_openat2(place.fd, path, &how);
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
            break;
    }
    return fd;
}

/* The directory that `path` lies in, as an O_PATH descriptor; *name is its last component, in place. */
int path_open_parent(struct place place, const char *path, const char **name)
{
    char parent[PATH_MAX];
    const char *slash = strrchr(path, '/');
    *name = slash != NULL ? slash + 1 : path;
    size_t length = (size_t)(*name - path);
    if (length >= sizeof parent || strlen(*name) > NAME_MAX) {
        errno = ENAMETOOLONG;
        return -1;
    }
    if (**name == '\0' || strcmp(*name, ".") == 0 || strcmp(*name, "..") == 0) {
        errno = EINVAL;
        return -1;
    }
    memcpy(parent, path, length);
    memcpy(parent + length, ".", 2); /* "/a/." also when the path is one component */
    return path_open(place, parent, O_PATH | O_DIRECTORY, 0);
}

/* Puts the target of the symbolic link `link` before what is left to resolve. */
static int put_before(char rest[PATH_MAX], const char **next, const char *link, size_t length)
{
    size_t left = strlen(*next);
    if (length + 1 + left >= PATH_MAX) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memmove(rest + length + 1, *next, left + 1);
    memcpy(rest, link, length);
    rest[length] = '/';
    *next = rest;
    return 0;
}

/* Writes `path` without links and dots to `out`, as seen from the root of `place`. What does not exist is taken as it
 * is written: also a dangling link leads somewhere (an image's /etc/resolv.conf often is one). */
static int canonical(struct place place, const char *path, char out[PATH_MAX])
{
    char rest[PATH_MAX];
    char link[PATH_MAX];
    size_t length = 0;
    int links = 0;
    if (strlen(path) >= sizeof rest) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(rest, path);
    out[0] = '\0';
    for (const char *next = rest;;) {
        next += strspn(next, "/");
        size_t part = strcspn(next, "/");
        if (part == 0)
            return 0;
        if (part == 1 && next[0] == '.') {
            next += part;
            continue;
        }
        if (part == 2 && next[0] == '.' && next[1] == '.') {
            while (length > 0 && out[--length] != '/')
                ;
            out[length] = '\0';
            next += part;
            continue;
        }
        if (length + 1 + part >= PATH_MAX) {
            errno = ENAMETOOLONG;
            return -1;
        }
        out[length] = '/';
        memcpy(out + length + 1, next, part);
        out[length + 1 + part] = '\0';
        next += part;
        int fd = path_open(place, out, O_PATH | O_NOFOLLOW, RESOLVE_NO_SYMLINKS);
        if (fd < 0 && errno != ENOENT)
            return -1;
        ssize_t got = fd >= 0 ? readlinkat(fd, "", link, sizeof link) : -1;
        if (fd >= 0)
            close(fd);
        if (got < 0) {
            length += 1 + part;
            continue;
        }
        if (++links > MAX_LINKS || (place.resolve & RESOLVE_NO_SYMLINKS) != 0) {
            errno = ELOOP;
            return -1;
        }
        if (put_before(rest, &next, link, (size_t)got) < 0)
            return -1;
        if (got > 0 && link[0] == '/')
            length = 0;
        out[length] = '\0';
    }
}

/* Opens `name` in `parent`, which holds no link; makes it when it is missing. Consumes `parent`. */
static int enter(int parent, const char *name, enum entry_kind kind, mode_t mode, bool *created)
{
    const struct place here = {.fd = parent, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS};
    int fd = path_open(here, name, O_PATH, 0);
    if (fd < 0 && errno == ENOENT) {
        int made = kind == ENTRY_DIRECTORY ? mkdirat(parent, name, mode)
                                           : openat(parent, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, mode);
        if (made > 0)
            close(made);
        *created = made >= 0;
        if (made >= 0 || errno == EEXIST) /* EEXIST: somebody was faster, which is as good */
            fd = path_open(here, name, O_PATH, 0);
    }
    int error = errno;
    close(parent);
    errno = error;
    return fd;
}

/* An O_PATH descriptor of `path`, made with its parents when it is missing. *created: this call made the last part. */
int path_make(struct place place, const char *path, enum entry_kind kind, mode_t mode, bool *created)
{
    char real[PATH_MAX];
    *created = false;
    int fd = path_open(place, path, O_PATH, 0);
    if (fd >= 0 || errno != ENOENT)
        return fd;
    if (canonical(place, path, real) < 0)
        return -1;
    fd = path_open(place, "/", O_PATH | O_DIRECTORY, 0);
    char *name = real + strspn(real, "/");
    while (fd >= 0 && *name != '\0') {
        size_t length = strcspn(name, "/");
        bool last = name[length] == '\0';
        name[length] = '\0';
        *created = false;
        fd = last ? enter(fd, name, kind, mode, created) : enter(fd, name, ENTRY_DIRECTORY, 0755, created);
        name += last ? length : length + 1;
    }
    return fd;
}
