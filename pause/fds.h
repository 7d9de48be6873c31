/* Packets with descriptors (unix(7), SCM_RIGHTS). */
#ifndef PAUSE_FDS_H
#define PAUSE_FDS_H

#include <stddef.h>
#include <sys/socket.h>

#include "protocol.h"

/* Room for any number of descriptors that the kernel lets through. */
union fds_control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(MAX_MESSAGE_FDS * sizeof(int))];
};

ssize_t send_with_fds(int socket, const void *bytes, size_t size, const int *fds, unsigned count, int flags);

/* Receives into `bytes`; the descriptors are the caller's, at most MAX_MESSAGE_FDS. *flags: in MSG_DONTWAIT or 0, out
 * msg_flags. */
ssize_t receive_with_fds(int socket, void *bytes, size_t size, int fds[MAX_MESSAGE_FDS], unsigned *count, int *flags);

void close_fds(const int *fds, unsigned count); /* skips negative ones */

#endif
