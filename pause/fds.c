#define _GNU_SOURCE
#include "fds.h"

#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

ssize_t send_with_fds(int socket, const void *bytes, size_t size, const int *fds, unsigned count, int flags)
{
    union fds_control control;
    struct iovec data = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    if (count > 0) {
        size_t length = count * sizeof(int);
        memset(&control, 0, CMSG_SPACE(length));
        message.msg_control = &control;
        message.msg_controllen = (socklen_t)CMSG_SPACE(length);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = (socklen_t)CMSG_LEN(length);
        memcpy(CMSG_DATA(&control.header), fds, length);
    }
    return sendmsg(socket, &message, flags | MSG_NOSIGNAL);
}

ssize_t receive_with_fds(int socket, void *bytes, size_t size, int fds[MAX_MESSAGE_FDS], unsigned *count, int *flags)
{
    union fds_control control;
    struct iovec data = {.iov_base = bytes, .iov_len = size};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(socket, &message, *flags | MSG_CMSG_CLOEXEC);
    *count = 0;
    if (got < 0)
        return got;
    *flags = message.msg_flags;
    /* The kernel makes one header of all descriptors of a packet, and nothing else was asked for. */
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
        *count = (unsigned)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds, CMSG_DATA(header), *count * sizeof(int));
    }
    return got;
}

void close_fds(const int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}
