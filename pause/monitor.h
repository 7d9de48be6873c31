/* The monitor of a pod: its state and its rooms. One thread, one epoll set, one event at a time. */
#ifndef PAUSE_MONITOR_H
#define PAUSE_MONITOR_H

#include <sys/types.h>

#include "interpret.h"
#include "logs.h"

#define MAX_READERS 4
#define MAX_START_FDS (MAX_SENT_FDS + 1) /* and the terminal */
#define READER_PATIENCE_NS 1000000000u /* an attached reader that takes nothing for so long is dropped */
#define SHUTDOWN_PATIENCE_NS 10000000000u
#define DRAIN_MAX (1u << 20) /* of a dead process' pipe, before its exit is told */

enum source_kind { SOURCE_LISTEN, SOURCE_SIGNAL, SOURCE_CONNECTION, SOURCE_REPORT, SOURCE_STREAM, SOURCE_READER };

/* A descriptor in the epoll set. `fd` -1: not there. */
struct source {
    int fd;
    enum source_kind kind;
    void *owner;
};

struct packet;

struct connection {
    struct source source; /* fd -1: free */
    uint32_t generation;  /* answers to a connection that is gone must not reach its successor */
    struct packet *first, **last; /* answers that did not fit into the socket */
    uint64_t shutdown_seq;        /* to answer when everything is dead */
    bool wants_shutdown;
};

/* Somebody attached to a stream. While `pending` is not empty nothing more is read from the stream. */
struct reader {
    struct source source; /* fd -1: free */
    char *pending;
    size_t length, done;
    uint64_t deadline_ns;
};

struct stream {
    struct source source; /* fd -1: closed or never there */
    struct process *process;
    struct log_line line;
    bool paused;
    size_t drained; /* bytes since the process died */
    struct reader readers[MAX_READERS];
};

struct process {
    struct process *next;
    char id[PROCESS_ID_BYTES];
    enum process_state state;
    bool dead;      /* reaped; its exit is told when its output is drained */
    bool record;    /* write an exit record */
    bool plan_done;
    bool terminal;
    pid_t pid;
    int pidfd;
    int stdin_fd; /* write end; -1: none, or the terminal */
    int log_fd;
    struct source report;
    struct stream out, err;
    int code, signal;
    uint64_t time_ns, started_ns;
    struct start *start; /* while STATE_STARTING */
};

/* A request to run that is not answered yet. */
struct start {
    uint32_t generation;
    uint64_t seq;
    struct report report;
    int fds[MAX_START_FDS];
    unsigned fd_count;
};

struct monitor {
    int epoll;
    int state_dir;
    int socket_dir;
    uint32_t generation; /* of the youngest connection */
    int self_pidns;
    struct source listen;
    struct source signals;
    struct connection connections[MAX_CONNECTIONS];
    struct process *processes;
    unsigned process_count;
    unsigned pending_readers;
    bool oom_adjusted;
    bool strayed; /* children would be born in another PID namespace */
    bool buffers_used;
    bool stopping;
    uint64_t stop_deadline_ns;
    char oom_score_adj[8];
    struct rlimit nofile;
    char socket_name[64];
};

/* monitor.c */
int monitor_main(int argc, char **argv);
bool watch(struct monitor *m, struct source *source, uint32_t events);
void rewatch(struct monitor *m, struct source *source, uint32_t events);
void unwatch_close(struct monitor *m, struct source *source); /* idempotent */
uint64_t clock_ns(clockid_t clock);
void complain(struct monitor *m, const char *what, int error);

/* connections.c */
void accept_connection(struct monitor *m);
void connection_event(struct monitor *m, struct connection *c, uint32_t events);
void connection_drop(struct monitor *m, struct connection *c);
struct connection *connection_of(struct monitor *m, uint32_t generation);
/* Sends or queues; takes the descriptors. */
void send_packet(struct monitor *m, struct connection *c, const void *bytes, size_t size, const int *fds, unsigned count);

/* requests.c */
void handle_request(struct monitor *m, struct connection *c, const struct request *request, int *fds, unsigned count);
void answer(struct monitor *m, struct connection *c, uint64_t seq, int stage, int error, int op_index);
void describe_process(const struct process *p, struct wire_process *wire);
void announce_exit(struct monitor *m, const struct process *p);

/* children.c */
struct process *process_find(struct monitor *m, const char *id);
void process_free(struct monitor *m, struct process *p);
void run(struct monitor *m, struct connection *c, const struct request *request, int *fds, unsigned count);
void report_event(struct monitor *m, struct process *p);
void reap(struct monitor *m);
void tell_exit_when_drained(struct monitor *m, struct process *p);
void kill_everything(struct monitor *m);
bool exit_record_remove(struct monitor *m, const char *id);

/* birth.c */
struct birth {
    const struct plan *plan;
    const struct request *request;
    const int *slots;
    unsigned slot_count;
    int stdio[3]; /* -1: /dev/null */
    int report_fd;
};
pid_t give_birth(struct monitor *m, const struct birth *birth, int *pidfd); /* -1 with errno */

/* streams.c */
void stream_init(struct stream *s, struct process *p, const char *name);
bool stream_open(struct monitor *m, struct stream *s, int fd); /* takes `fd` when true */
void stream_event(struct monitor *m, struct stream *s);
void stream_drain(struct monitor *m, struct stream *s);
void stream_close(struct monitor *m, struct stream *s);
void stream_free(struct monitor *m, struct stream *s);
bool stream_attach(struct monitor *m, struct stream *s, int fd); /* takes `fd` when true */
void reader_event(struct monitor *m, struct stream *s, struct reader *r);
void drop_slow_readers(struct monitor *m, uint64_t now_ns);
void trim_buffers(struct monitor *m);

#endif
