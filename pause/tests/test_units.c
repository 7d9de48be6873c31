/* Unit tests of what needs no kernel objects, built with AddressSanitizer and UndefinedBehaviorSanitizer.
 *
 *     test_units                    all tests
 *     test_units decode FILE...     "ok" or "refused <op>" a file: for the tests in Python, which own the encoder */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../logs.h"
#include "../plan.h"

#define STAMP "2026-01-02T15:04:05.000000001Z"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static char batch_bytes[LOG_LINE_MAX * 2];

static char *formatted(const char *const *pieces, size_t count)
{
    struct log_line line = {.name = "stdout"};
    struct log_batch batch = {.fd = memfd_create("log", 0), .size = sizeof batch_bytes, .bytes = batch_bytes};
    for (size_t i = 0; i < count; i++)
        log_feed(&line, &batch, STAMP, pieces[i], strlen(pieces[i]));
    log_end(&line, &batch, STAMP);
    log_flush(&batch);
    CHECK(line.tail == NULL && batch.lost == 0);
    off_t size = lseek(batch.fd, 0, SEEK_END);
    char *text = calloc(1, (size_t)size + 1);
    CHECK(text != NULL && pread(batch.fd, text, (size_t)size, 0) == size);
    close(batch.fd);
    return text;
}

static void check_log(const char *const *pieces, size_t count, const char *expected)
{
    char *text = formatted(pieces, count);
    if (strcmp(text, expected) != 0) {
        fprintf(stderr, "got:\n%s\nexpected:\n%s\n", text, expected);
        exit(1);
    }
    free(text);
}

static void test_lines(void)
{
    check_log((const char *[]){"a\nb\n"}, 1, STAMP " stdout F a\n" STAMP " stdout F b\n");
    check_log((const char *[]){"hel", "lo\n"}, 2, STAMP " stdout F hello\n");
    check_log((const char *[]){"\n\n"}, 1, STAMP " stdout F \n" STAMP " stdout F \n");
    check_log((const char *[]){"no newline"}, 1, STAMP " stdout P no newline\n");
    check_log((const char *[]){""}, 1, "");
}

static void test_long_lines(void)
{
    static char text[LOG_LINE_MAX * 2 + 3];
    memset(text, 'x', sizeof text);
    strcpy(text + LOG_LINE_MAX, "\n");
    char *log = formatted((const char *[]){text}, 1);
    CHECK(strlen(log) == LOG_PREFIX_LENGTH + LOG_LINE_MAX + 1 && log[LOG_STAMP_LENGTH + 8] == 'F');
    free(log);
    /* The newline in another piece than the line that is just as long as fits. */
    text[LOG_LINE_MAX] = '\0';
    log = formatted((const char *[]){text, "\n"}, 2);
    CHECK(strlen(log) == LOG_PREFIX_LENGTH + LOG_LINE_MAX + 1 && log[LOG_STAMP_LENGTH + 8] == 'F');
    free(log);
    log = formatted((const char *[]){text, "y\n"}, 2);
    CHECK(log[LOG_STAMP_LENGTH + 8] == 'P');
    CHECK(strcmp(strchr(log, '\n') + 1, STAMP " stdout F y\n") == 0);
    free(log);
}

static void test_lost(void)
{
    struct log_line line = {.name = "stderr"};
    int full = open("/dev/full", O_WRONLY);
    struct log_batch batch = {.fd = full, .size = sizeof batch_bytes, .bytes = batch_bytes};
    log_feed(&line, &batch, STAMP, "x\n", 2);
    log_flush(&batch);
    CHECK(batch.lost == LOG_PREFIX_LENGTH + 2 && batch.used == 0);
    close(full);
}

static void test_stamp(void)
{
    char stamp[LOG_STAMP_LENGTH + 1];
    log_stamp(stamp, &(struct timespec){.tv_sec = 1767366245, .tv_nsec = 1});
    CHECK(strcmp(stamp, STAMP) == 0);
    log_stamp(stamp, &(struct timespec){.tv_sec = 4102444799, .tv_nsec = 999999999});
    CHECK(strcmp(stamp, "2099-12-31T23:59:59.999999999Z") == 0);
}

static void test_decoder_refuses(void)
{
    struct {
        struct plan_header header;
        struct plan_op op;
        char text[8];
    } bytes = {
        .header = {PLAN_MAGIC, PLAN_VERSION, 1, 16 + 64 + 5, 0},
        .op = {.code = OP_EXEC, .fd = NONE, .at = NONE, .a = 1, .strings = {{80, 4}}},
        .text = "true",
    };
    struct plan plan;
    int bad;
    CHECK(plan_decode(&plan, &bytes, 85, &bad) && bad == -1);
    CHECK(strcmp(plan_string(&plan, plan.ops, 0), "true") == 0);
    CHECK(!plan_decode(&plan, &bytes, 84, &bad));
    CHECK(!plan_decode(&plan, &bytes, 86, &bad));
    CHECK(!plan_decode(&plan, &bytes, 0, &bad));
    bytes.op.strings[0].offset = UINT32_MAX - 7;
    CHECK(!plan_decode(&plan, &bytes, 85, &bad) && bad == 0);
    bytes.op.strings[0].offset = 80;
    bytes.op.strings[0].length = UINT32_MAX;
    CHECK(!plan_decode(&plan, &bytes, 85, &bad));
    bytes.op.strings[0].length = 4;
    bytes.op.a = 2;
    CHECK(!plan_decode(&plan, &bytes, 85, &bad));
    bytes.op.a = 1;
    bytes.op.fd = 0;
    CHECK(!plan_decode(&plan, &bytes, 85, &bad));
    bytes.header.slot_count = 1;
    CHECK(plan_decode(&plan, &bytes, 85, &bad));
    bytes.text[4] = 'x';
    CHECK(!plan_decode(&plan, &bytes, 85, &bad));
}

static void decode_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    char *bytes = malloc(MAX_PLAN_BYTES + 1);
    CHECK(bytes != NULL);
    size_t size = fread(bytes, 1, MAX_PLAN_BYTES + 1, file);
    fclose(file);
    bytes = realloc(bytes, size > 0 ? size : 1); /* so that the sanitizer sees a read past the end */
    struct plan plan;
    int bad_op;
    if (plan_decode(&plan, bytes, size, &bad_op))
        printf("ok %d\n", plan.header->op_count);
    else
        printf("refused %d\n", bad_op);
    free(bytes);
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "decode") == 0) {
        for (int i = 2; i < argc; i++)
            decode_file(argv[i]);
        return 0;
    }
    test_lines();
    test_long_lines();
    test_lost();
    test_stamp();
    test_decoder_refuses();
    puts("ok");
    return 0;
}
