/* Connections of daemons: packets in, packets out, never waiting for either. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "fds.h"
#include "monitor.h"
#include "sys.h"

/* An answer that waits for room. There are few: no further request is read while there is one. */
struct packet {
    struct packet *next;
    size_t size;
    unsigned fd_count;
    int fds[MAX_START_FDS];
    unsigned char bytes[];
};

struct connection *connection_of(struct monitor *m, uint32_t generation)
{
    for (unsigned i = 0; i < MAX_CONNECTIONS; i++)
        if (m->connections[i].source.fd >= 0 && m->connections[i].generation == generation)
            return &m->connections[i];
    return NULL;
}

void accept_connection(struct monitor *m)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    int fd = accept4(m->listen.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid()) {
        for (unsigned i = 0; i < MAX_CONNECTIONS; i++) {
            struct connection *c = &m->connections[i];
            if (c->source.fd >= 0)
                continue;
            *c = (struct connection){.source = {.fd = fd, .kind = SOURCE_CONNECTION, .owner = c},
                                     .generation = ++m->generation};
            c->last = &c->first;
            if (watch(m, &c->source, EPOLLIN))
                return;
            c->source.fd = -1;
            break;
        }
    }
    close(fd);
}

void connection_drop(struct monitor *m, struct connection *c)
{
    unwatch_close(m, &c->source);
    while (c->first != NULL) {
        struct packet *packet = c->first;
        c->first = packet->next;
        close_fds(packet->fds, packet->fd_count);
        free(packet);
    }
    c->last = &c->first;
    c->wants_shutdown = false;
}

void send_packet(struct monitor *m, struct connection *c, const void *bytes, size_t size, const int *fds,
                 unsigned count)
{
    if (c->first == NULL) {
        ssize_t sent = send_with_fds(c->source.fd, bytes, size, fds, count, MSG_DONTWAIT);
        if (sent >= 0 || (errno != EAGAIN && errno != ENOBUFS)) {
            close_fds(fds, count); /* after another error the hang-up event ends the connection */
            return;
        }
    }
    struct packet *packet = malloc(sizeof *packet + size);
    if (packet == NULL) {
        /* An answer must not be lost alone: the daemon connects again and asks for the list. */
        close_fds(fds, count);
        shutdown(c->source.fd, SHUT_RDWR);
        return;
    }
    packet->next = NULL;
    packet->size = size;
    packet->fd_count = count;
    if (count > 0)
        memcpy(packet->fds, fds, count * sizeof(int));
    memcpy(packet->bytes, bytes, size);
    *c->last = packet;
    c->last = &packet->next;
    rewatch(m, &c->source, EPOLLOUT);
}

static void send_queued(struct monitor *m, struct connection *c)
{
    while (c->first != NULL) {
        struct packet *packet = c->first;
        if (send_with_fds(c->source.fd, packet->bytes, packet->size, packet->fds, packet->fd_count, MSG_DONTWAIT) < 0) {
            if (errno != EAGAIN && errno != ENOBUFS)
                connection_drop(m, c);
            return;
        }
        c->first = packet->next;
        close_fds(packet->fds, packet->fd_count);
        free(packet);
    }
    c->last = &c->first;
    rewatch(m, &c->source, EPOLLIN);
}

static bool well_formed(const struct request *request, ssize_t size, int message_flags)
{
    if (size != sizeof *request || (message_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0)
        return false;
    return request->magic == WIRE_MAGIC && request->version == WIRE_VERSION && request->zero == 0 &&
           request->process_id[PROCESS_ID_BYTES - 1] == '\0';
}

static void receive(struct monitor *m, struct connection *c)
{
    struct request request;
    int fds[MAX_MESSAGE_FDS];
    unsigned count;
    int flags = MSG_DONTWAIT;
    ssize_t got = receive_with_fds(c->source.fd, &request, sizeof request, fds, &count, &flags);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        connection_drop(m, c);
        return;
    }
    if (well_formed(&request, got, flags))
        handle_request(m, c, &request, fds, count);
    else
        connection_drop(m, c);
    close_fds(fds, count);
}

void connection_event(struct monitor *m, struct connection *c, uint32_t events)
{
    if (c->first != NULL) {
        if ((events & (EPOLLHUP | EPOLLERR)) != 0)
            connection_drop(m, c);
        else
            send_queued(m, c);
        return;
    }
    receive(m, c);
}
