/* Output of processes: from pipes and terminals to logs and to whoever is attached. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#include "monitor.h"
#include "sys.h"

#define PAGE 4096

/* Shared by all streams, because only one is served at a time; given back to the kernel when it gets quiet. */
static char read_buffer[65536] __attribute__((aligned(PAGE)));
static char write_buffer[131072] __attribute__((aligned(PAGE)));

void trim_buffers(struct monitor *m)
{
    (void)madvise(read_buffer, sizeof read_buffer, MADV_DONTNEED);
    (void)madvise(write_buffer, sizeof write_buffer, MADV_DONTNEED);
    m->buffers_used = false;
}

void stream_init(struct stream *s, struct process *p, const char *name)
{
    *s = (struct stream){.source = {.fd = -1, .kind = SOURCE_STREAM, .owner = s}, .process = p, .line = {.name = name}};
    for (unsigned i = 0; i < MAX_READERS; i++)
        s->readers[i].source = (struct source){.fd = -1, .kind = SOURCE_READER, .owner = s};
}

bool stream_open(struct monitor *m, struct stream *s, int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return false;
    s->source.fd = fd;
    if (watch(m, &s->source, EPOLLIN))
        return true;
    s->source.fd = -1;
    return false;
}

static void reader_drop(struct monitor *m, struct reader *r)
{
    if (r->pending != NULL) {
        free(r->pending);
        r->pending = NULL;
        m->pending_readers--;
    }
    unwatch_close(m, &r->source);
}

static bool wants_pause(const struct stream *s)
{
    for (unsigned i = 0; i < MAX_READERS; i++)
        if (s->readers[i].pending != NULL)
            return true;
    return false;
}

static void resume_or_pause(struct monitor *m, struct stream *s)
{
    bool paused = wants_pause(s);
    if (paused != s->paused && s->source.fd >= 0)
        rewatch(m, &s->source, paused ? 0 : EPOLLIN);
    s->paused = paused;
    if (!paused && s->process->dead)
        tell_exit_when_drained(m, s->process);
}

/* Copies to one reader; what it does not take at once waits for it, and the stream waits too. */
static void reader_give(struct monitor *m, struct reader *r, const char *data, size_t size)
{
    ssize_t written = write(r->source.fd, data, size);
    if (written < 0 && errno != EAGAIN && errno != EINTR) {
        reader_drop(m, r);
        return;
    }
    size_t done = written > 0 ? (size_t)written : 0;
    if (done == size)
        return;
    r->pending = malloc(size - done);
    if (r->pending == NULL) {
        reader_drop(m, r);
        return;
    }
    m->pending_readers++;
    memcpy(r->pending, data + done, size - done);
    r->length = size - done;
    r->done = 0;
    r->deadline_ns = clock_ns(CLOCK_MONOTONIC) + READER_PATIENCE_NS;
    rewatch(m, &r->source, EPOLLOUT);
}

/* A reader became writable, or hung up. */
void reader_event(struct monitor *m, struct stream *s, struct reader *r)
{
    if (r->pending == NULL) {
        reader_drop(m, r); /* only a hang-up is reported without a wish */
        return;
    }
    ssize_t written = write(r->source.fd, r->pending + r->done, r->length - r->done);
    if (written < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (written < 0) {
        reader_drop(m, r);
    } else {
        r->done += (size_t)written;
        r->deadline_ns = clock_ns(CLOCK_MONOTONIC) + READER_PATIENCE_NS;
        if (r->done < r->length)
            return;
        free(r->pending);
        r->pending = NULL;
        m->pending_readers--;
        rewatch(m, &r->source, 0);
    }
    if (s->source.fd < 0) /* the stream ended while this reader was behind */
        reader_drop(m, r);
    resume_or_pause(m, s);
}

static void drop_slow_of(struct monitor *m, struct stream *s, uint64_t now_ns)
{
    bool dropped = false;
    for (unsigned i = 0; i < MAX_READERS; i++) {
        struct reader *r = &s->readers[i];
        if (r->pending != NULL && (now_ns >= r->deadline_ns || m->stopping)) {
            reader_drop(m, r);
            dropped = true;
        }
    }
    if (dropped)
        resume_or_pause(m, s);
}

void drop_slow_readers(struct monitor *m, uint64_t now_ns)
{
    for (struct process *p = m->processes; p != NULL && m->pending_readers > 0; p = p->next) {
        drop_slow_of(m, &p->out, now_ns);
        drop_slow_of(m, &p->err, now_ns);
    }
}

bool stream_attach(struct monitor *m, struct stream *s, int fd)
{
    for (unsigned i = 0; i < MAX_READERS; i++) {
        struct reader *r = &s->readers[i];
        if (r->source.fd >= 0)
            continue;
        int flags = fcntl(fd, F_GETFL);
        if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
            return false;
        r->source.fd = fd;
        if (watch(m, &r->source, 0))
            return true;
        r->source.fd = -1;
        return false;
    }
    errno = EMFILE;
    return false;
}

/* Reads once. Returns the bytes read, 0 at the end, -1 when there is nothing now. */
static ssize_t pump(struct monitor *m, struct stream *s)
{
    char stamp[LOG_STAMP_LENGTH + 1];
    struct timespec now;
    ssize_t got = read(s->source.fd, read_buffer, sizeof read_buffer);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return -1;
    struct log_batch batch = {.fd = s->process->log_fd, .size = sizeof write_buffer, .bytes = write_buffer};
    clock_gettime(CLOCK_REALTIME, &now);
    log_stamp(stamp, &now);
    m->buffers_used = true;
    if (got <= 0) { /* EIO: the last slave of a terminal was closed */
        log_end(&s->line, &batch, stamp);
        log_flush(&batch);
        return 0;
    }
    if (s->process->log_fd >= 0) {
        log_feed(&s->line, &batch, stamp, read_buffer, (size_t)got);
        log_flush(&batch);
    }
    for (unsigned i = 0; i < MAX_READERS; i++)
        if (s->readers[i].source.fd >= 0)
            reader_give(m, &s->readers[i], read_buffer, (size_t)got);
    return got;
}

/* The stream ended. Readers that still have something to take stay until they took it. */
void stream_close(struct monitor *m, struct stream *s)
{
    unwatch_close(m, &s->source);
    free(s->line.tail);
    s->line.tail = NULL;
    s->line.length = s->line.room = 0;
    for (unsigned i = 0; i < MAX_READERS; i++)
        if (s->readers[i].pending == NULL)
            reader_drop(m, &s->readers[i]);
    s->paused = wants_pause(s);
}

/* The process is forgotten, and its readers with it. */
void stream_free(struct monitor *m, struct stream *s)
{
    stream_close(m, s);
    for (unsigned i = 0; i < MAX_READERS; i++)
        reader_drop(m, &s->readers[i]);
}

void stream_event(struct monitor *m, struct stream *s)
{
    if (s->paused) {
        /* Only a hang-up comes through. It would come again and again, so stop looking until the reader is done. */
        epoll_ctl(m->epoll, EPOLL_CTL_DEL, s->source.fd, NULL);
        return;
    }
    if (pump(m, s) == 0)
        stream_close(m, s);
    resume_or_pause(m, s);
}

/* Takes what a dead process left in its pipe. A grandchild may hold the other end for ever and go on writing: the end
 * is not waited for, and there is a bound. */
void stream_drain(struct monitor *m, struct stream *s)
{
    while (s->source.fd >= 0 && !s->paused && s->drained < DRAIN_MAX) {
        ssize_t got = pump(m, s);
        if (got < 0)
            return;
        if (got == 0) {
            stream_close(m, s);
            return;
        }
        s->drained += (size_t)got;
        s->paused = wants_pause(s);
        if (s->paused)
            rewatch(m, &s->source, 0);
    }
}
