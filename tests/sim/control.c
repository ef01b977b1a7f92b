/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The control socket's clients, for main.c. Answers go out in the order of the lines; a waiting client's next lines wait too. */
#include "control.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

void control_wait_done(struct client *cl, int pin, double value, int64_t now_ns, bool reached)
{
    char text[8];

    cl->wait_pin = PIN_NONE;
    buf_printf(&cl->out, "{%s,\"pin\":\"%s\",\"value\":%.6g,\"waited_ms\":%.3f,\"t\":%.6f}\n", reached ? "\"ok\":true" : "\"error\":\"timeout\"",
        pin_text(pin, text), value, (double)(now_ns - cl->wait_since_ns) / 1e6, (double)now_ns / 1e9);
}

static void client_close(struct client *cl)
{
    if (cl->fd >= 0) close(cl->fd);
    buf_fini(&cl->out);
    *cl = (struct client){.fd = -1, .wait_pin = PIN_NONE};
}

static void client_flush(struct client *cl)
{
    while (cl->fd >= 0 && cl->out.n) {
        ssize_t n = send(cl->fd, cl->out.p, cl->out.n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            buf_drop_front(&cl->out, (size_t)n);
            continue;
        }
        if (n < 0 && errno != EAGAIN && errno != EINTR) client_close(cl);
        break;
    }
    if (cl->fd >= 0 && (cl->out.n > CLIENT_OUT_MAX || cl->out.failed)) client_close(cl);
}

static void client_lines(struct control *c, struct client *cl, int64_t now_ns)
{
    char *end;

    while (cl->wait_pin == PIN_NONE && (end = memchr(cl->in, '\n', cl->in_n))) {
        size_t n = (size_t)(end - cl->in) + 1;
        *end = 0;
        if (end > cl->in && end[-1] == '\r') end[-1] = 0;
        control_run_line(c, cl, cl->in, now_ns);
        memmove(cl->in, cl->in + n, cl->in_n - n);
        cl->in_n -= n;
    }
}

static void client_read(struct control *c, struct client *cl, int64_t now_ns)
{
    ssize_t n = recv(cl->fd, cl->in + cl->in_n, CLIENT_LINE_MAX - cl->in_n, MSG_DONTWAIT);

    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        client_close(cl);
        return;
    }
    if (n < 0) return;
    cl->in_n += (size_t)n;
    client_lines(c, cl, now_ns);
    if (cl->in_n == CLIENT_LINE_MAX && cl->wait_pin == PIN_NONE) client_close(cl); /* a line that never ends */
}

static void client_accept(struct control *c)
{
    int fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    for (int i = 0; fd >= 0 && i < CLIENTS_MAX; i++) {
        if (c->clients[i].fd >= 0) continue;
        c->clients[i].fd = fd;
        return;
    }
    if (fd >= 0) close(fd);
}

nfds_t control_polls(const struct control *c, struct pollfd *out)
{
    out[0] = (struct pollfd){.fd = c->fd, .events = POLLIN};
    for (int i = 0; i < CLIENTS_MAX; i++) {
        const struct client *cl = &c->clients[i];
        short ev = (short)((cl->in_n < CLIENT_LINE_MAX ? POLLIN : 0) | (cl->out.n ? POLLOUT : 0));
        out[i + 1] = (struct pollfd){.fd = cl->fd, .events = ev};
    }
    return CLIENTS_MAX + 1;
}

void control_serve(struct control *c, const struct pollfd *fds, nfds_t n, int64_t now_ns)
{
    c->now_ns = now_ns;
    for (nfds_t i = 1; i < n; i++) {
        struct client *cl = &c->clients[i - 1];
        if (cl->fd >= 0 && cl->fd == fds[i].fd && fds[i].revents & (POLLIN | POLLHUP | POLLERR)) client_read(c, cl, now_ns);
    }
    if (fds[0].revents & POLLIN) client_accept(c);
}

int64_t control_timeouts(struct control *c, int64_t now_ns)
{
    int64_t next = -1;

    for (int i = 0; i < CLIENTS_MAX; i++) {
        struct client *cl = &c->clients[i];
        if (cl->fd < 0) continue;
        if (cl->wait_pin != PIN_NONE && now_ns >= cl->wait_until_ns) control_wait_done(cl, cl->wait_pin, c->pins->at[cl->wait_pin].value, now_ns, false);
        client_lines(c, cl, now_ns);
        if (cl->wait_pin != PIN_NONE && (next < 0 || cl->wait_until_ns - now_ns < next)) next = cl->wait_until_ns - now_ns;
    }
    return next;
}

void control_pin_changed(struct control *c, int pin, struct when at)
{
    double value = c->pins->at[pin].value;

    for (int i = 0; i < CLIENTS_MAX; i++) {
        struct client *cl = &c->clients[i];
        if (cl->fd >= 0 && cl->wait_pin == pin && fabs(value - cl->wait_value) < 1e-3) control_wait_done(cl, pin, value, at.ns, true);
    }
}

void control_event(void *control, const char *what, const char *line, size_t n)
{
    struct control *c = control;

    for (int i = 0; i < CLIENTS_MAX; i++) {
        struct client *cl = &c->clients[i];
        bool want = cl->fd >= 0 && cl->watching && cl->out.n <= CLIENT_OUT_MAX;
        bool named = !cl->kinds[0][0];
        for (int k = 0; want && k < WATCH_KINDS_MAX && cl->kinds[k][0]; k++) named = named || !strcmp(cl->kinds[k], what);
        if (want && named) buf_put(&cl->out, line, n);
    }
}

void control_flush(struct control *c)
{
    for (int i = 0; i < CLIENTS_MAX; i++) client_flush(&c->clients[i]);
}

int control_open(struct control *c, const char *path, struct mcu *m, struct world *w, struct pins *p, struct log *l)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    memset(c, 0, sizeof *c);
    for (int i = 0; i < CLIENTS_MAX; i++) c->clients[i] = (struct client){.fd = -1, .wait_pin = PIN_NONE};
    c->mcu = m, c->world = w, c->pins = p, c->log = l;
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->fd < 0) return -1;
    if (strlen(path) >= sizeof a.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(a.sun_path, path, strlen(path) + 1);
    if (bind(c->fd, (struct sockaddr *)&a, sizeof a) < 0 || chmod(path, 0600) < 0 || listen(c->fd, 8) < 0) return -1;
    return 0;
}

void control_close(struct control *c)
{
    for (int i = 0; i < CLIENTS_MAX; i++) client_close(&c->clients[i]);
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
}
