/* libFuzzer: output cut into any pieces must come out of the log exactly as it went in. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../logs.h"

#define STAMP "2026-01-02T15:04:05.000000001Z"

/* Joins the pieces again, as a reader of the format does. */
static size_t reassemble(const char *log, size_t size, char *out)
{
    size_t used = 0;
    while (size > 0) {
        const char *end = memchr(log, '\n', size);
        if (end == NULL || (size_t)(end - log) < LOG_PREFIX_LENGTH || memcmp(log, STAMP " stdout ", 38) != 0)
            abort();
        size_t length = (size_t)(end - log) - LOG_PREFIX_LENGTH;
        if (length > LOG_LINE_MAX || log[39] != ' ')
            abort();
        memcpy(out + used, log + LOG_PREFIX_LENGTH, length);
        used += length;
        if (log[38] == 'F')
            out[used++] = '\n';
        else if (log[38] != 'P')
            abort();
        size -= (size_t)(end - log) + 1;
        log = end + 1;
    }
    return used;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char batch_bytes[LOG_LINE_MAX + 256];
    static char log[1 << 20];
    static char out[1 << 20];
    if (size < 2 || size > 65536)
        return 0;
    struct log_line line = {.name = "stdout"};
    struct log_batch batch = {.fd = memfd_create("log", 0), .size = sizeof batch_bytes, .bytes = batch_bytes};
    /* Long lines from a short input: every byte stands for `repeat` of it. */
    size_t repeat = (size_t)data[0] % 3 == 0 ? (size_t)data[0] * 7 + 1 : 1;
    size_t step = (size_t)data[1] * 64 + 1;
    size_t length = 0;
    static char text[1 << 18];
    for (size_t i = 2; i < size && length + repeat < sizeof text; i++)
        for (size_t n = 0; n < (data[i] == '\n' ? 1 : repeat); n++)
            text[length++] = (char)data[i];
    for (size_t at = 0; at < length; at += step) {
        log_feed(&line, &batch, STAMP, text + at, step < length - at ? step : length - at);
        log_flush(&batch);
    }
    log_end(&line, &batch, STAMP);
    log_flush(&batch);
    off_t written = lseek(batch.fd, 0, SEEK_END);
    if (written < 0 || (size_t)written > sizeof log || (length + 1) * (LOG_PREFIX_LENGTH + 2) < (size_t)written)
        abort();
    if (pread(batch.fd, log, (size_t)written, 0) != written || line.tail != NULL || batch.lost != 0)
        abort();
    if (reassemble(log, (size_t)written, out) != length || memcmp(out, text, length) != 0)
        abort();
    close(batch.fd);
    return 0;
}
