/* Linked into build/pause-sanitized: a monitor has no standard error and no environment to be told by. */
#include <stddef.h>

const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

const char *__asan_default_options(void)
{
    return "log_path=/tmp/pause-sanitizer:detect_leaks=0:abort_on_error=1";
}

const char *__ubsan_default_options(void)
{
    return "log_path=/tmp/pause-sanitizer:print_stacktrace=1";
}
