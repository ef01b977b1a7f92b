/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Moonraker's unix socket for moonraker.c: messages ended by 0x03, whatever pieces they come and go in.
 * Invariant: `down` is told only from the loop, so a write that fails inside a call of the user breaks the link at the next turn. */
#include "loop.h"
#include "moonraker.h"
#include "mr_link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define READ_BYTES 65536 /* room for one read, and what the buffer shrinks back to */

struct mr_link {
    struct loop *loop;
    const char *path;
    const struct mr_link_events *ev;
    void *user;
    int fd;                   /* -1: idle */
    bool up, broken, blocked; /* blocked: the socket takes no more, EPOLLOUT is watched */
    int error;                /* errno of what broke it */
    struct loop_timer *soon;  /* tells up, or what broke */
    char *in;                 /* what has come of messages not yet told */
    size_t in_n, in_size;
};

static void on_socket(void *user, int fd, uint32_t events);

static void close_socket(struct mr_link *k)
{
    if (k->fd >= 0) {
        loop_unwatch(k->loop, k->fd);
        close(k->fd);
    }
    k->fd = -1;
    k->up = k->broken = k->blocked = false;
    k->in_n = 0;
    loop_timer_cancel(k->soon);
}

static void go_down(struct mr_link *k, const char *why)
{
    close_socket(k);
    k->ev->down(k->user, why);
}

/* For places that may not tell it themselves. */
static void break_soon(struct mr_link *k, int error)
{
    k->broken = true;
    k->error = error;
    loop_timer_set(k->soon, 0);
}

static void on_soon(void *user)
{
    struct mr_link *k = user;
    if (k->broken || k->fd < 0) {
        go_down(k, strerror(k->error));
        return;
    }
    k->up = true;
    k->ev->up(k->user);
}

static void write_some(struct mr_link *k)
{
    const char *text;
    size_t n;

    while (k->up && !k->broken && (text = k->ev->peek(k->user, &n))) {
        ssize_t sent = send(k->fd, text, n + 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0) {
            k->ev->wrote(k->user, (size_t)sent);
            continue;
        }
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && errno != EAGAIN) {
            break_soon(k, errno);
            return;
        }
        if (!k->blocked && loop_watch(k->loop, k->fd, EPOLLIN | EPOLLOUT, on_socket, k)) break_soon(k, errno);
        k->blocked = true;
        return;
    }
    if (k->blocked && !k->broken) {
        k->blocked = false;
        if (loop_watch(k->loop, k->fd, EPOLLIN, on_socket, k)) break_soon(k, errno);
    }
}

/* Tells each whole message of k->in; `from` is where the new bytes begin. */
static void tell_messages(struct mr_link *k, size_t from)
{
    size_t start = 0;
    char *end;

    while (!k->broken && (end = memchr(k->in + from, MR_UNIX_END, k->in_n - from))) {
        size_t next = (size_t)(end - k->in) + 1;
        *end = 0;
        k->ev->message(k->user, k->in + start, (size_t)(end - k->in) - start);
        start = from = next;
    }
    if (k->broken) return;
    k->in_n -= start;
    memmove(k->in, k->in + start, k->in_n);
    if (k->in_size > READ_BYTES && k->in_n < READ_BYTES / 2) { /* a big message has passed */
        char *smaller = realloc(k->in, READ_BYTES);
        if (smaller) {
            k->in = smaller;
            k->in_size = READ_BYTES;
        }
    }
}

/* Reads once. NULL, or why the link is over. */
static const char *read_some(struct mr_link *k)
{
    ssize_t n;
    size_t from = k->in_n;

    if (k->in_n >= MR_FRAME_MAX) return "message too long";
    if (k->in_size - k->in_n < READ_BYTES / 2) {
        size_t size = k->in_size ? k->in_size * 2 : READ_BYTES;
        char *grown = realloc(k->in, size);
        if (!grown) return "out of memory";
        k->in = grown;
        k->in_size = size;
    }
    n = recv(k->fd, k->in + k->in_n, k->in_size - k->in_n, MSG_DONTWAIT);
    if (n < 0) return errno == EAGAIN || errno == EINTR ? NULL : strerror(errno);
    if (n == 0) return "closed by the other side";
    k->in_n += (size_t)n;
    tell_messages(k, from);
    return NULL;
}

static void on_socket(void *user, int fd, uint32_t events)
{
    struct mr_link *k = user;
    const char *why;

    (void)fd;
    if (!k->up || k->broken) return; /* on_soon comes first */
    if (events & EPOLLOUT) write_some(k);
    if (k->broken || !(events & ~(uint32_t)EPOLLOUT)) return;
    why = read_some(k);
    if (why) go_down(k, why);
}

static void unix_connect(struct mr_link *k)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    size_t n = strlen(k->path);

    k->error = ENAMETOOLONG;
    loop_timer_set(k->soon, 0);
    if (n >= sizeof a.sun_path) return;
    memcpy(a.sun_path, k->path, n);
    k->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    /* A unix socket connects at once or not at all; a full backlog is EAGAIN. */
    if (k->fd < 0 || connect(k->fd, (struct sockaddr *)&a, sizeof a) || loop_watch(k->loop, k->fd, EPOLLIN, on_socket, k)) break_soon(k, errno);
}

static void unix_drop(struct mr_link *k)
{
    break_soon(k, ETIMEDOUT);
}

static void unix_free(struct mr_link *k)
{
    if (!k) return;
    close_socket(k);
    loop_timer_free(k->soon);
    free(k->in);
    free(k);
}

static struct mr_link *unix_new(struct loop *l, const struct mr_config *cfg, const struct mr_link_events *ev, void *user)
{
    struct mr_link *k = calloc(1, sizeof *k);
    if (!k) return NULL;
    *k = (struct mr_link){ .loop = l, .path = cfg->socket, .ev = ev, .user = user, .fd = -1 };
    k->soon = loop_timer_new(l, on_soon, k);
    if (k->soon) return k;
    free(k);
    return NULL;
}

const struct mr_link_kind mr_unix = { "unix", true, unix_new, unix_connect, write_some, unix_drop, unix_free };
