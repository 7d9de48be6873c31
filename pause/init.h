#ifndef PAUSE_INIT_H
#define PAUSE_INIT_H

#include <stdbool.h>

/* The pause process. Returns the exit status when it is told from outside to end. */
int init_main(void);

#endif
