/* One program, two roles, chosen by the name it is started under:
 *     sandbox-monitor <pod id>   see monitor.c
 *     pause                      see init.c */
#include <string.h>

#include "init.h"
#include "monitor.h"

int main(int argc, char **argv)
{
    if (argc < 1)
        return 2;
    const char *slash = strrchr(argv[0], '/');
    const char *name = slash != NULL ? slash + 1 : argv[0];
    if (strcmp(name, "sandbox-monitor") == 0)
        return monitor_main(argc, argv);
    if (strcmp(name, "pause") == 0)
        return init_main();
    return 2;
}
