/* What a daemon can ask a monitor for. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>

#include "monitor.h"
#include "sys.h"

static struct reply reply_to(uint64_t seq, enum reply_kind kind)
{
    return (struct reply){
        .magic = WIRE_MAGIC, .version = WIRE_VERSION, .kind = (uint16_t)kind, .seq = seq, .op_index = -1};
}

void answer(struct monitor *m, struct connection *c, uint64_t seq, int stage, int error, int op_index)
{
    struct reply reply = reply_to(seq, REPLY_ANSWER);
    reply.stage = (uint16_t)stage;
    reply.error = error;
    reply.op_index = op_index;
    reply.pid = getpid();
    send_packet(m, c, &reply, sizeof reply, NULL, 0);
}

void describe_process(const struct process *p, struct wire_process *wire)
{
    *wire = (struct wire_process){
        .pid = p->pid,
        .state = p->state,
        .code = p->code,
        .signal = p->signal,
        .time_ns = p->time_ns,
        .started_ns = p->started_ns,
    };
    memcpy(wire->process_id, p->id, sizeof wire->process_id);
}

void announce_exit(struct monitor *m, const struct process *p)
{
    struct {
        struct reply reply;
        struct wire_process process;
    } packet = {.reply = reply_to(0, REPLY_EXIT)};
    packet.reply.entry_count = 1;
    describe_process(p, &packet.process);
    for (unsigned i = 0; i < MAX_CONNECTIONS; i++)
        if (m->connections[i].source.fd >= 0)
            send_packet(m, &m->connections[i], &packet, sizeof packet, NULL, 0);
}

static void list(struct monitor *m, struct connection *c, uint64_t seq)
{
    struct {
        struct reply reply;
        struct wire_process processes[LIST_ENTRIES];
    } packet;
    const struct process *p = m->processes;
    do {
        packet.reply = reply_to(seq, REPLY_ANSWER);
        for (; p != NULL && packet.reply.entry_count < LIST_ENTRIES; p = p->next)
            describe_process(p, &packet.processes[packet.reply.entry_count++]);
        packet.reply.more = p != NULL;
        send_packet(m, c, &packet,
                    sizeof packet.reply + packet.reply.entry_count * sizeof(struct wire_process), NULL, 0);
    } while (p != NULL);
}

/* [A-Za-z0-9._-], not beginning with a dot: it becomes a file name. */
static bool valid_id(const char *id)
{
    size_t length = strlen(id);
    if (length == 0 || length > MAX_PROCESS_ID || id[0] == '.')
        return false;
    for (const char *c = id; *c != '\0'; c++)
        if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || *c == '.' ||
              *c == '_' || *c == '-'))
            return false;
    return true;
}

static bool slot_in(int slot, unsigned count)
{
    return slot == NONE || (slot >= 0 && (unsigned)slot < count);
}

static int check_run(struct monitor *m, const struct request *request, unsigned count)
{
    if (count < 1 || count - 1 > MAX_SLOTS || !slot_in(request->pidns_slot, count - 1) ||
        !slot_in(request->cgroup_slot, count - 1) || !slot_in(request->log_slot, count - 1) ||
        (request->flags & ~(RUN_STDIN | RUN_TTY | RUN_CAPTURE | RUN_RECORD_EXIT)) != 0)
        return EINVAL;
    if (m->stopping)
        return ESHUTDOWN;
    if (process_find(m, request->process_id) != NULL)
        return EEXIST;
    return m->process_count >= MAX_PROCESSES ? EUSERS : 0;
}

/* Each returns 0 or an errno for the answer. */

static int send_signal(const struct process *p, int signal)
{
    if (p->dead || p->pidfd < 0)
        return ESRCH;
    return sys_pidfd_send_signal(p->pidfd, signal) < 0 ? errno : 0;
}

/* A stream that is closed, or that a terminal does not have, ends at once for its reader: the descriptor is closed. */
static int attach_one(struct monitor *m, struct stream *s, int *fd)
{
    if (s->source.fd < 0)
        return 0;
    if (!stream_attach(m, s, *fd))
        return errno;
    *fd = -1;
    return 0;
}

static int attach(struct monitor *m, struct process *p, uint16_t flags, int *fds, unsigned count)
{
    unsigned wanted = (flags & ATTACH_STDOUT ? 1u : 0u) + (flags & ATTACH_STDERR ? 1u : 0u);
    if (count != wanted || (flags & ~(ATTACH_STDOUT | ATTACH_STDERR)) != 0)
        return EINVAL;
    int error = 0;
    if ((flags & ATTACH_STDOUT) != 0)
        error = attach_one(m, &p->out, fds);
    if (error == 0 && (flags & ATTACH_STDERR) != 0)
        error = attach_one(m, &p->err, &fds[count - 1]);
    return error;
}

/* Answers itself when it can. */
static int give_stdin(struct monitor *m, struct connection *c, const struct process *p, uint64_t seq)
{
    int from = p->terminal ? p->out.source.fd : p->stdin_fd;
    if (from < 0)
        return EPIPE;
    int fd = fcntl(from, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return errno;
    struct reply reply = reply_to(seq, REPLY_ANSWER);
    send_packet(m, c, &reply, sizeof reply, &fd, 1);
    return 0;
}

static int close_stdin(struct process *p)
{
    if (p->stdin_fd >= 0)
        close(p->stdin_fd);
    p->stdin_fd = -1;
    return 0;
}

static int reopen_log(struct process *p, int *fds, unsigned count)
{
    if (count != 1)
        return EINVAL;
    if (p->log_fd >= 0)
        close(p->log_fd);
    p->log_fd = fds[0];
    fds[0] = -1;
    return 0;
}

static int forget(struct monitor *m, struct process *p)
{
    if (p->state != STATE_EXITED)
        return EBUSY;
    if (p->record && !exit_record_remove(m, p->id))
        return errno;
    process_free(m, p);
    return 0;
}

/* Requests about one process. -1: answered already. */
static int handle_process(struct monitor *m, struct connection *c, const struct request *request, struct process *p,
                          int *fds, unsigned count)
{
    int error;
    switch (request->kind) {
    case REQUEST_SIGNAL:
        return send_signal(p, request->value);
    case REQUEST_ATTACH:
        return attach(m, p, request->flags, fds, count);
    case REQUEST_STDIN:
        error = give_stdin(m, c, p, request->seq);
        return error == 0 ? -1 : error;
    case REQUEST_CLOSE_STDIN:
        return close_stdin(p);
    case REQUEST_REOPEN_LOG:
        return reopen_log(p, fds, count);
    case REQUEST_FORGET:
        return forget(m, p);
    default:
        return EINVAL;
    }
}

void handle_request(struct monitor *m, struct connection *c, const struct request *request, int *fds, unsigned count)
{
    int error;
    switch (request->kind) {
    case REQUEST_HELLO:
        error = 0;
        break;
    case REQUEST_LIST:
        list(m, c, request->seq);
        return;
    case REQUEST_SHUTDOWN:
        if (!m->stopping)
            m->stop_deadline_ns = clock_ns(CLOCK_MONOTONIC) + SHUTDOWN_PATIENCE_NS;
        m->stopping = true;
        c->wants_shutdown = true;
        c->shutdown_seq = request->seq;
        return;
    case REQUEST_RUN:
        error = valid_id(request->process_id) ? check_run(m, request, count) : EINVAL;
        if (error == 0) {
            run(m, c, request, fds, count);
            return;
        }
        break;
    default: {
        struct process *p = process_find(m, request->process_id);
        error = p == NULL ? ENOENT : handle_process(m, c, request, p, fds, count);
        if (error < 0)
            return;
        break;
    }
    }
    answer(m, c, request->seq, error != 0 ? STAGE_REQUEST : STAGE_NONE, error, -1);
}
