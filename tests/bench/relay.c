/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Passes bytes between one client on a unix socket of its own and another unix socket, for scripts/bench: the least that any process between a client and
 * Moonraker costs. Invariant: it reads nothing of what it passes on. */
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static bool address(struct sockaddr_un *a, const char *path)
{
    *a = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof a->sun_path)
        return false;
    strcpy(a->sun_path, path);
    return true;
}

static bool pass(int from, int to)
{
    char buffer[65536];
    ssize_t n = read(from, buffer, sizeof buffer);
    for (ssize_t done = 0, w; done < n; done += w)
        if ((w = write(to, buffer + done, (size_t)(n - done))) <= 0)
            return false;
    return n > 0;
}

int main(int argc, char **argv)
{
    struct sockaddr_un own, other;
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), to = socket(AF_UNIX, SOCK_STREAM, 0);
    if (argc != 3 || !address(&own, argv[1]) || !address(&other, argv[2])) {
        fprintf(stderr, "usage: kp-relay OWN-SOCKET OTHER-SOCKET\n");
        return 2;
    }
    if (bind(listener, (struct sockaddr *)&own, sizeof own) || listen(listener, 1) || connect(to, (struct sockaddr *)&other, sizeof other)) {
        perror("kp-relay");
        return 1;
    }
    puts("ready");
    fflush(stdout);
    int from = accept(listener, NULL, NULL);
    struct pollfd p[2] = { { .fd = from, .events = POLLIN }, { .fd = to, .events = POLLIN } };
    while (poll(p, 2, -1) >= 0)
        for (int i = 0; i < 2; i++)
            if (p[i].revents && !pass(p[i].fd, p[1 - i].fd))
                return 0;
    return 1;
}
