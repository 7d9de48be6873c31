/* Processes from the request that starts them to the record of their exit. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "fds.h"
#include "monitor.h"
#include "sys.h"
#include "text.h"

#define RECORD_NAME (PROCESS_ID_BYTES + 16)

struct process *process_find(struct monitor *m, const char *id)
{
    for (struct process *p = m->processes; p != NULL; p = p->next)
        if (strcmp(p->id, id) == 0)
            return p;
    return NULL;
}

static struct process *process_of_pid(struct monitor *m, pid_t pid)
{
    for (struct process *p = m->processes; p != NULL; p = p->next)
        if (p->pid == pid && !p->dead)
            return p;
    return NULL;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void start_free(struct process *p)
{
    if (p->start == NULL)
        return;
    for (unsigned i = 0; i < p->start->fd_count; i++)
        close(p->start->fds[i]);
    free(p->start);
    p->start = NULL;
}

void process_free(struct monitor *m, struct process *p)
{
    struct process **link = &m->processes;
    while (*link != NULL && *link != p)
        link = &(*link)->next;
    if (*link == p) {
        *link = p->next;
        m->process_count--;
    }
    unwatch_close(m, &p->report);
    stream_free(m, &p->out);
    stream_free(m, &p->err);
    start_free(p);
    close_fd(&p->pidfd);
    close_fd(&p->stdin_fd);
    close_fd(&p->log_fd);
    free(p);
}

/* ---- start ---- */

/* Maps a plan that nobody can change any more. NULL with errno. */
static const void *map_plan(int fd, size_t *size)
{
    const int seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;
    struct stat status;
    int sealed = fcntl(fd, F_GET_SEALS);
    if (sealed < 0 || (sealed & seals) != seals) {
        errno = EPERM;
        return NULL;
    }
    if (fstat(fd, &status) < 0)
        return NULL;
    if (status.st_size <= 0 || status.st_size > MAX_PLAN_BYTES) {
        errno = EFBIG;
        return NULL;
    }
    *size = (size_t)status.st_size;
    void *bytes = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, fd, 0);
    return bytes == MAP_FAILED ? NULL : bytes;
}

static struct process *process_new(const struct request *request)
{
    struct process *p = calloc(1, sizeof *p);
    if (p == NULL)
        return NULL;
    p->start = calloc(1, sizeof *p->start);
    if (p->start == NULL) {
        free(p);
        return NULL;
    }
    memcpy(p->id, request->process_id, sizeof p->id);
    p->state = STATE_STARTING;
    p->record = (request->flags & RUN_RECORD_EXIT) != 0;
    p->pidfd = p->stdin_fd = p->log_fd = -1;
    p->report = (struct source){.fd = -1, .kind = SOURCE_REPORT, .owner = p};
    stream_init(&p->out, p, "stdout");
    stream_init(&p->err, p, "stderr");
    return p;
}

/* A pipe from the child: its end in *child, ours in the stream. */
static bool output_pipe(struct monitor *m, struct stream *s, int *child)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return false;
    *child = ends[1];
    if (stream_open(m, s, ends[0]))
        return true;
    int error = errno;
    close(ends[0]);
    errno = error;
    return false;
}

static bool make_stdio(struct monitor *m, struct process *p, uint16_t flags, int stdio[3])
{
    if ((flags & RUN_CAPTURE) == 0 || (flags & RUN_TTY) != 0)
        return true;
    if ((flags & RUN_STDIN) != 0) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) < 0)
            return false;
        stdio[0] = ends[0];
        p->stdin_fd = ends[1];
    }
    return output_pipe(m, &p->out, &stdio[1]) && output_pipe(m, &p->err, &stdio[2]);
}

/* Everything between a checked plan and a child that runs it. */
static bool bring_up(struct monitor *m, struct process *p, const struct request *request, const struct plan *plan,
                     int *slots, unsigned slot_count)
{
    struct birth birth = {.plan = plan,
                          .request = request,
                          .slots = slots,
                          .slot_count = slot_count,
                          .stdio = {-1, -1, -1},
                          .report_fd = -1};
    int report[2] = {-1, -1};
    bool born = false;
    if (make_stdio(m, p, request->flags, birth.stdio) &&
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, report) == 0) {
        p->report.fd = report[0];
        birth.report_fd = report[1];
        if (watch(m, &p->report, EPOLLIN)) {
            p->pid = give_birth(m, &birth, &p->pidfd);
            born = p->pid > 0;
        }
    }
    int error = errno;
    for (int i = 0; i < 3; i++)
        close_fd(&birth.stdio[i]);
    close_fd(&report[1]);
    errno = error;
    return born;
}

void run(struct monitor *m, struct connection *c, const struct request *request, int *fds, unsigned count)
{
    struct plan plan;
    size_t size = 0;
    int bad_op = -1;
    const void *bytes = map_plan(fds[0], &size);
    if (bytes == NULL) {
        answer(m, c, request->seq, STAGE_DECODE, errno, -1);
        return;
    }
    if (!plan_decode(&plan, bytes, size, &bad_op) || plan.header->slot_count < count - 1) {
        answer(m, c, request->seq, STAGE_DECODE, EINVAL, bad_op);
    } else {
        struct process *p = process_new(request);
        if (p == NULL) {
            answer(m, c, request->seq, STAGE_REQUEST, ENOMEM, -1);
        } else if (!bring_up(m, p, request, &plan, fds + 1, count - 1)) {
            answer(m, c, request->seq, STAGE_CLONE, errno, -1);
            process_free(m, p);
        } else {
            p->start->generation = c->generation;
            p->start->seq = request->seq;
            if (request->log_slot != NONE) {
                p->log_fd = fds[1 + request->log_slot];
                fds[1 + request->log_slot] = -1;
            }
            p->next = m->processes;
            m->processes = p;
            m->process_count++;
        }
    }
    munmap((void *)(uintptr_t)bytes, size);
}

static void answer_start(struct monitor *m, struct process *p, int stage, int error)
{
    struct start *start = p->start;
    struct connection *c = connection_of(m, start->generation);
    struct {
        struct reply reply;
        unsigned char rest[sizeof start->report.warnings + sizeof start->report.marks];
    } packet;
    int fds[MAX_SENT_FDS + 1];
    unsigned count = 0;
    if (c == NULL)
        return; /* who asked is gone; who comes next finds the process in the list */
    packet.reply = (struct reply){
        .magic = WIRE_MAGIC,
        .version = WIRE_VERSION,
        .kind = REPLY_ANSWER,
        .seq = start->seq,
        .error = error,
        .op_index = stage == STAGE_OP ? start->report.op_index : -1,
        .pid = p->pid,
        .stage = (uint16_t)stage,
        .warning_count = start->report.warning_count,
        .mark_count = start->report.mark_count,
    };
    size_t warnings = start->report.warning_count * sizeof(struct wire_warning);
    size_t marks = start->report.mark_count * sizeof(struct wire_mark);
    memcpy(packet.rest, start->report.warnings, warnings);
    memcpy(packet.rest + warnings, start->report.marks, marks);
    if (stage == STAGE_NONE) {
        fds[count] = fcntl(p->pidfd, F_DUPFD_CLOEXEC, 3);
        if (fds[count] >= 0)
            count++;
        for (unsigned i = 0; i < start->fd_count; i++)
            fds[count++] = start->fds[i];
        start->fd_count = 0;
    }
    send_packet(m, c, &packet, sizeof packet.reply + warnings + marks, fds, count);
}

/* The child's end of the report is closed: it executes, or it is dead. Frees `p` in the second case. */
static void finish_start(struct monitor *m, struct process *p)
{
    struct start *start = p->start;
    unwatch_close(m, &p->report);
    if (p->plan_done && start->report.failed == 0) {
        if (start->report.has_terminal != 0 && start->fd_count > 0) {
            p->terminal = stream_open(m, &p->out, start->fds[0]);
            if (!p->terminal)
                close(start->fds[0]);
            start->fd_count--;
            memmove(start->fds, start->fds + 1, start->fd_count * sizeof(int));
        }
        p->state = STATE_RUNNING;
        p->started_ns = clock_ns(CLOCK_REALTIME);
        answer_start(m, p, STAGE_NONE, 0);
        start_free(p);
        return;
    }
    if (start->report.failed != 0)
        answer_start(m, p, STAGE_OP, start->report.error);
    else
        answer_start(m, p, STAGE_DIED, EOWNERDEAD);
    process_free(m, p); /* whose exit is then that of a stranger */
}

static void take_report(struct process *p, const int *fds, unsigned count)
{
    struct start *start = p->start;
    if (start->report.warning_count > MAX_WARNINGS || start->report.mark_count > MAX_MARKS)
        start->report.warning_count = start->report.mark_count = 0;
    if (start->report.failed == 0)
        p->plan_done = true;
    for (unsigned i = 0; i < count; i++) {
        if (start->fd_count < MAX_START_FDS)
            start->fds[start->fd_count++] = fds[i];
        else
            close(fds[i]);
    }
}

/* May free `p`. */
void report_event(struct monitor *m, struct process *p)
{
    for (;;) {
        int fds[MAX_MESSAGE_FDS];
        unsigned count;
        int flags = MSG_DONTWAIT;
        ssize_t got = receive_with_fds(p->report.fd, &p->start->report, sizeof p->start->report, fds, &count, &flags);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got <= 0) {
            finish_start(m, p);
            return;
        }
        take_report(p, fds, count);
    }
}

/* ---- exit ---- */

/* "exits/<prefix><id><suffix>" */
static void record_name(char name[RECORD_NAME], const char *prefix, const char *id, const char *suffix)
{
    struct text text = {.bytes = name, .size = RECORD_NAME};
    text_add(&text, "exits/");
    text_add(&text, prefix);
    text_add(&text, id);
    text_add(&text, suffix);
}

static void describe_exit(struct text *text, const struct process *p)
{
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {", \"pid\": ", (uint64_t)p->pid},       {", \"code\": ", (uint64_t)p->code},
        {", \"signal\": ", (uint64_t)p->signal}, {", \"time_ns\": ", p->time_ns},
        {", \"started_ns\": ", p->started_ns},
    };
    text_add(text, "{\"process_id\": \"");
    text_add(text, p->id);
    text_add(text, "\"");
    for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        text_add(text, numbers[i].name);
        text_add_number(text, numbers[i].value);
    }
    text_add(text, "}\n");
}

/* A file that is there whole or not at all, before anybody is told. */
static void write_exit_record(struct monitor *m, const struct process *p)
{
    char temporary[RECORD_NAME];
    char name[RECORD_NAME];
    char bytes[512];
    struct text text = TEXT(bytes);
    record_name(temporary, ".", p->id, ".new");
    record_name(name, "", p->id, "");
    describe_exit(&text, p);
    int fd = openat(m->state_dir, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool written = fd >= 0 && write(fd, text.bytes, text.used) == (ssize_t)text.used;
    int error = errno;
    if (fd >= 0)
        close(fd);
    if (!written || renameat(m->state_dir, temporary, m->state_dir, name) < 0)
        complain(m, "an exit record cannot be written", written ? errno : error);
}

bool exit_record_remove(struct monitor *m, const char *id)
{
    char name[RECORD_NAME];
    record_name(name, "", id, "");
    return unlinkat(m->state_dir, name, 0) == 0 || errno == ENOENT;
}

void tell_exit_when_drained(struct monitor *m, struct process *p)
{
    if (!p->dead || p->state == STATE_EXITED)
        return;
    stream_drain(m, &p->out);
    stream_drain(m, &p->err);
    if ((p->out.source.fd >= 0 && p->out.paused) || (p->err.source.fd >= 0 && p->err.paused))
        return; /* until the slow reader took it or was dropped */
    close_fd(&p->stdin_fd);
    close_fd(&p->pidfd);
    p->state = STATE_EXITED;
    if (p->record)
        write_exit_record(m, p);
    announce_exit(m, p);
}

void reap(struct monitor *m)
{
    for (;;) {
        siginfo_t info = {0};
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0)
            return;
        struct process *p = process_of_pid(m, info.si_pid);
        if (p != NULL && p->state == STATE_STARTING) {
            report_event(m, p); /* its last words; it may be gone after them */
            p = process_of_pid(m, info.si_pid);
        }
        if (p == NULL)
            continue; /* an orphan of the pod, or a child whose plan failed */
        p->dead = true;
        p->time_ns = clock_ns(CLOCK_REALTIME);
        p->signal = info.si_code == CLD_EXITED ? 0 : info.si_status;
        p->code = info.si_code == CLD_EXITED ? info.si_status & 0xff : 128 + info.si_status;
        tell_exit_when_drained(m, p);
    }
}

void kill_everything(struct monitor *m)
{
    char text[1024];
    for (struct process *p = m->processes; p != NULL; p = p->next)
        if (!p->dead && p->pidfd >= 0)
            (void)sys_pidfd_send_signal(p->pidfd, SIGKILL);
    /* Orphans became our children; until they are reaped below, their pids are theirs. */
    int fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    text[got > 0 ? got : 0] = '\0';
    pid_t pid = 0;
    for (const char *next = text; *next != '\0'; next++) {
        if (*next >= '0' && *next <= '9') {
            pid = pid * 10 + (*next - '0');
            continue;
        }
        /* Only what a space follows: the last may be cut in two, its turn comes with the next call. */
        if (pid > 1)
            (void)kill(pid, SIGKILL);
        pid = 0;
    }
}
