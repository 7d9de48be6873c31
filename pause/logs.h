/* Output of a container in the log format of the CRI, one line of the container a line of the file:
 *     2026-01-02T15:04:05.999999999Z stdout F the line
 * A line longer than LOG_LINE_MAX is cut: all pieces but the last are P (partial), the last is F (full). Output that
 * ends without a newline ends with a P, so that a reader that joins pieces gets exactly the container's bytes
 * (containerd and kubelet agree on that). */
#ifndef PAUSE_LOGS_H
#define PAUSE_LOGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define LOG_LINE_MAX 16384
#define LOG_STAMP_LENGTH 30 /* 2026-01-02T15:04:05.999999999Z */
#define LOG_PREFIX_LENGTH (LOG_STAMP_LENGTH + 10) /* " stdout F " */

/* The line that is not finished yet, of one stream. */
struct log_line {
    const char *name; /* "stdout" or "stderr" */
    char *tail;       /* owned; NULL when empty, so that an idle stream costs nothing */
    size_t length;
    size_t room;
};

/* Collects formatted lines and writes many at once. */
struct log_batch {
    int fd; /* -1: thrown away */
    size_t used;
    size_t size;
    char *bytes;
    uint64_t lost; /* bytes that could not be written */
};

void log_stamp(char stamp[LOG_STAMP_LENGTH + 1], const struct timespec *now);
void log_feed(struct log_line *line, struct log_batch *batch, const char *stamp, const char *data, size_t size);
void log_end(struct log_line *line, struct log_batch *batch, const char *stamp);
void log_flush(struct log_batch *batch);

#endif
