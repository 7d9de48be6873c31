/* The monitor: parent, reaper and log keeper of one pod's processes.
 *
 * It lives in the host's namespaces and outlives the daemon. It never waits for anybody: not for a child's plan, not
 * for a reader of output, not for a daemon. Descriptors it starts with:
 *     3  the listening socket (SOCK_SEQPACKET)
 *     4  the pod's state directory, with exits/ in it
 *     5  the directory that the socket lies in */
#define _GNU_SOURCE
#include "monitor.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "sys.h"
#include "text.h"

#define TICK_MS 100   /* while something has a deadline */
#define QUIET_MS 1000 /* after which buffers are given back */

uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* For the few things nobody can be answered about. The file is made by the first of them. */
void complain(struct monitor *m, const char *what, int error)
{
    char line[160];
    struct text text = TEXT(line);
    int fd = openat(m->state_dir, "monitor.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return;
    text_add_number(&text, clock_ns(CLOCK_REALTIME));
    text_add(&text, " ");
    text_add(&text, what);
    text_add(&text, " (errno ");
    text_add_number(&text, (uint64_t)error);
    text_add(&text, ")\n");
    (void)!write(fd, text.bytes, text.used);
    close(fd);
}

bool watch(struct monitor *m, struct source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    return epoll_ctl(m->epoll, EPOLL_CTL_ADD, source->fd, &event) == 0;
}

void rewatch(struct monitor *m, struct source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    if (epoll_ctl(m->epoll, EPOLL_CTL_MOD, source->fd, &event) < 0 && errno == ENOENT)
        (void)epoll_ctl(m->epoll, EPOLL_CTL_ADD, source->fd, &event);
}

void unwatch_close(struct monitor *m, struct source *source)
{
    if (source->fd < 0)
        return;
    /* Explicitly: a duplicate of the descriptor in a child or a daemon would keep it in the set. */
    (void)epoll_ctl(m->epoll, EPOLL_CTL_DEL, source->fd, NULL);
    close(source->fd);
    source->fd = -1;
}

static void read_signals(struct monitor *m)
{
    struct signalfd_siginfo info;
    while (read(m->signals.fd, &info, sizeof info) == (ssize_t)sizeof info)
        ;
    reap(m);
}

static void dispatch(struct monitor *m, struct source *source, uint32_t events)
{
    struct stream *stream;
    switch (source->kind) {
    case SOURCE_LISTEN:
        accept_connection(m);
        return;
    case SOURCE_SIGNAL:
        read_signals(m);
        return;
    case SOURCE_CONNECTION:
        connection_event(m, source->owner, events);
        return;
    case SOURCE_REPORT:
        report_event(m, source->owner);
        return;
    case SOURCE_STREAM:
        stream_event(m, source->owner);
        return;
    case SOURCE_READER:
        stream = source->owner;
        reader_event(m, stream, (struct reader *)(void *)((char *)source - offsetof(struct reader, source)));
        return;
    }
}

static bool everything_dead(const struct monitor *m)
{
    siginfo_t info;
    for (const struct process *p = m->processes; p != NULL; p = p->next)
        if (p->state != STATE_EXITED)
            return false;
    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 && errno == ECHILD;
}

static void stop_when_dead(struct monitor *m, uint64_t now_ns)
{
    kill_everything(m);
    if (!everything_dead(m) && now_ns < m->stop_deadline_ns)
        return;
    (void)unlinkat(m->socket_dir, m->socket_name, 0);
    for (unsigned i = 0; i < MAX_CONNECTIONS; i++)
        if (m->connections[i].wants_shutdown)
            answer(m, &m->connections[i], m->connections[i].shutdown_seq, STAGE_NONE, 0, -1);
    _exit(0);
}

_Noreturn static void serve(struct monitor *m)
{
    for (;;) {
        struct epoll_event event;
        bool ticking = m->stopping || m->pending_readers > 0;
        /* One event a call: whatever its handler frees, no other event of the same batch can point to it. */
        int got = epoll_wait(m->epoll, &event, 1, ticking ? TICK_MS : m->buffers_used ? QUIET_MS : -1);
        if (got > 0)
            dispatch(m, event.data.ptr, event.events);
        else if (got == 0 && m->buffers_used)
            trim_buffers(m);
        if (m->pending_readers > 0)
            drop_slow_readers(m, clock_ns(CLOCK_MONOTONIC));
        if (m->stopping)
            stop_when_dead(m, clock_ns(CLOCK_MONOTONIC));
    }
}

/* Nothing is ignored, everything is blocked: a stray SIGTERM or SIGHUP does nothing, and children only need to
 * unblock. A fault of our own still kills, blocked or not. */
static int take_signals(void)
{
    sigset_t set;
    for (int number = 1; number < NSIG; number++)
        (void)sys_default_action(number);
    (void)sys_block_all_signals();
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* The kernel should kill a container first. Needs CAP_SYS_RESOURCE to go below where we were started. */
static void avoid_oom_killer(struct monitor *m)
{
    int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t got = read(fd, m->oom_score_adj, sizeof m->oom_score_adj - 1);
    if (got > 0) {
        m->oom_score_adj[got] = '\0';
        m->oom_adjusted = pwrite(fd, "-999", 4, 0) == 4;
    }
    close(fd);
}

static void raise_descriptor_limit(struct monitor *m)
{
    if (getrlimit(RLIMIT_NOFILE, &m->nofile) < 0)
        return;
    struct rlimit most = {.rlim_cur = m->nofile.rlim_max, .rlim_max = m->nofile.rlim_max};
    (void)sys_prlimit(RLIMIT_NOFILE, &most);
}

static void detach_stdio(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int target = 0; target <= 2; target++)
        (void)dup2(fd, target);
    if (fd > 2)
        close(fd);
}

/* The last component of the address that the socket was bound to. */
static void learn_socket_name(struct monitor *m)
{
    struct sockaddr_un address = {0};
    socklen_t size = sizeof address - 1;
    if (getsockname(m->listen.fd, (struct sockaddr *)(void *)&address, &size) < 0)
        return;
    const char *slash = strrchr(address.sun_path, '/');
    const char *name = slash != NULL ? slash + 1 : address.sun_path;
    if (strlen(name) < sizeof m->socket_name)
        strcpy(m->socket_name, name);
}

int monitor_main(int argc, char **argv)
{
    static struct monitor monitor;
    struct monitor *m = &monitor;
    (void)argv;
    int listening = 0;
    socklen_t size = sizeof listening;
    if (argc != 2 || getsockopt(3, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) < 0 || listening == 0 ||
        fcntl(4, F_GETFD) < 0 || fcntl(5, F_GETFD) < 0)
        return 2;
    sys_close_range(6, UINT_MAX, 0);
    detach_stdio();
    for (int fd = 3; fd <= 5; fd++)
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    (void)fcntl(3, F_SETFL, O_NONBLOCK);
    (void)prctl(PR_SET_NAME, "sandbox-monitor");
    (void)prctl(PR_SET_DUMPABLE, 0);
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 || chdir("/") < 0)
        return 1;
    umask(077);
    raise_descriptor_limit(m);
    avoid_oom_killer(m);
    m->state_dir = 4;
    m->socket_dir = 5;
    m->listen = (struct source){.fd = 3, .kind = SOURCE_LISTEN};
    m->signals = (struct source){.fd = take_signals(), .kind = SOURCE_SIGNAL};
    m->self_pidns = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
    m->epoll = epoll_create1(EPOLL_CLOEXEC);
    for (unsigned i = 0; i < MAX_CONNECTIONS; i++)
        m->connections[i].source.fd = -1;
    learn_socket_name(m);
    if (mkdirat(m->state_dir, "exits", 0700) < 0 && errno != EEXIST)
        complain(m, "the directory of exit records cannot be made", errno);
    if (m->epoll < 0 || m->signals.fd < 0 || m->self_pidns < 0 || !watch(m, &m->listen, EPOLLIN) ||
        !watch(m, &m->signals, EPOLLIN)) {
        complain(m, "the monitor cannot start", errno);
        return 1;
    }
    serve(m);
}
