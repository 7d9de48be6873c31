#define _GNU_SOURCE
#include "logs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void digits(char *to, unsigned width, unsigned long value)
{
    while (width-- > 0) {
        to[width] = (char)('0' + value % 10);
        value /= 10;
    }
}

/* UTC, always nine digits: stamps sort as text. */
void log_stamp(char stamp[LOG_STAMP_LENGTH + 1], const struct timespec *now)
{
    struct tm tm;
    gmtime_r(&now->tv_sec, &tm);
    memcpy(stamp, "0000-00-00T00:00:00.000000000Z", LOG_STAMP_LENGTH + 1);
    digits(stamp, 4, (unsigned long)(tm.tm_year + 1900));
    digits(stamp + 5, 2, (unsigned long)(tm.tm_mon + 1));
    digits(stamp + 8, 2, (unsigned long)tm.tm_mday);
    digits(stamp + 11, 2, (unsigned long)tm.tm_hour);
    digits(stamp + 14, 2, (unsigned long)tm.tm_min);
    digits(stamp + 17, 2, (unsigned long)tm.tm_sec);
    digits(stamp + 20, 9, (unsigned long)now->tv_nsec);
}

void log_flush(struct log_batch *batch)
{
    size_t done = 0;
    while (batch->fd >= 0 && done < batch->used) {
        ssize_t written = write(batch->fd, batch->bytes + done, batch->used - done);
        if (written > 0)
            done += (size_t)written;
        else if (errno != EINTR)
            break; /* a full disk costs lines, not the container */
    }
    if (batch->fd >= 0)
        batch->lost += batch->used - done;
    batch->used = 0;
}

/* One line of the log: the tail, then `size` bytes of `data`. */
static void emit(struct log_line *line, struct log_batch *batch, const char *stamp, const char *data, size_t size,
                 char tag)
{
    size_t needed = LOG_PREFIX_LENGTH + line->length + size + 1;
    if (needed > batch->size)
        __builtin_trap(); /* assert(3) would bring in all of printf */
    if (batch->used + needed > batch->size)
        log_flush(batch);
    char *to = batch->bytes + batch->used;
    memcpy(to, stamp, LOG_STAMP_LENGTH);
    to[LOG_STAMP_LENGTH] = ' ';
    memcpy(to + LOG_STAMP_LENGTH + 1, line->name, 6);
    to[LOG_STAMP_LENGTH + 7] = ' ';
    to[LOG_STAMP_LENGTH + 8] = tag;
    to[LOG_STAMP_LENGTH + 9] = ' ';
    to += LOG_PREFIX_LENGTH;
    if (line->length > 0)
        memcpy(to, line->tail, line->length);
    memcpy(to + line->length, data, size);
    to[line->length + size] = '\n';
    batch->used += needed;
    free(line->tail);
    line->tail = NULL;
    line->length = line->room = 0;
}

static bool keep(struct log_line *line, const char *data, size_t size)
{
    if (line->length + size > line->room) {
        size_t room = line->room > 0 ? line->room : 64;
        while (room < line->length + size)
            room *= 2;
        char *tail = realloc(line->tail, room);
        if (tail == NULL)
            return false;
        line->tail = tail;
        line->room = room;
    }
    memcpy(line->tail + line->length, data, size);
    line->length += size;
    return true;
}

void log_feed(struct log_line *line, struct log_batch *batch, const char *stamp, const char *data, size_t size)
{
    while (size > 0) {
        size_t room = LOG_LINE_MAX - line->length;
        /* One byte further than fits: a newline there ends a line of exactly the greatest length. */
        const char *newline = memchr(data, '\n', size < room + 1 ? size : room + 1);
        size_t taken;
        if (newline != NULL) {
            taken = (size_t)(newline - data);
            emit(line, batch, stamp, data, taken, 'F');
            taken++;
        } else if (size > room) {
            taken = room;
            emit(line, batch, stamp, data, taken, 'P');
        } else {
            taken = size;
            if (!keep(line, data, taken))
                emit(line, batch, stamp, data, taken, 'P'); /* no memory to wait for the rest */
        }
        data += taken;
        size -= taken;
    }
}

void log_end(struct log_line *line, struct log_batch *batch, const char *stamp)
{
    if (line->length > 0)
        emit(line, batch, stamp, "", 0, 'P');
}
