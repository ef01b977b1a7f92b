/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Passes bytes between one client at a time on a unix socket of its own and another unix socket, for scripts/bench: the least that any process between a
 * client and Moonraker costs. With a word it prints the time (CLOCK_MONOTONIC) at which a piece with that word came from the client.
 * Invariant: all bytes go through unchanged and in order. */
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static bool address(struct sockaddr_un *a, const char *path)
{
    *a = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof a->sun_path)
        return false;
    strcpy(a->sun_path, path);
    return true;
}

/* word: what to look for in what passes; NULL: nothing. */
static bool pass(int from, int to, const char *word)
{
    char buffer[65536];
    struct timespec t;
    ssize_t n = read(from, buffer, sizeof buffer);
    clock_gettime(CLOCK_MONOTONIC, &t);
    for (ssize_t done = 0, w; done < n; done += w)
        if ((w = write(to, buffer + done, (size_t)(n - done))) <= 0)
            return false;
    if (word && n > 0 && memmem(buffer, (size_t)n, word, strlen(word)))
        printf("%s %lld.%09ld\n", word, (long long)t.tv_sec, t.tv_nsec);
    return n > 0;
}

/* Until one of the two closes. */
static void serve(int client, int server, const char *word)
{
    struct pollfd p[2] = { { .fd = client, .events = POLLIN }, { .fd = server, .events = POLLIN } };
    while (poll(p, 2, -1) >= 0)
        for (int i = 0; i < 2; i++)
            if (p[i].revents && !pass(p[i].fd, p[1 - i].fd, i == 0 ? word : NULL))
                return;
}

int main(int argc, char **argv)
{
    struct sockaddr_un own, other;
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), client;
    if (argc < 3 || argc > 4 || !address(&own, argv[1]) || !address(&other, argv[2])) {
        fprintf(stderr, "usage: kp-relay OWN-SOCKET OTHER-SOCKET [WORD]\n");
        return 2;
    }
    if (bind(listener, (struct sockaddr *)&own, sizeof own) || listen(listener, 1)) {
        perror("kp-relay");
        return 1;
    }
    signal(SIGPIPE, SIG_IGN); /* one that has gone ends its connection, not us */
    setlinebuf(stdout);
    puts("ready");
    while ((client = accept(listener, NULL, NULL)) >= 0) {
        int server = socket(AF_UNIX, SOCK_STREAM, 0);
        if (!connect(server, (struct sockaddr *)&other, sizeof other)) /* else it does not serve yet, and the client tries again */
            serve(client, server, argv[3]);
        close(client);
        close(server);
    }
    perror("kp-relay");
    return 1;
}
