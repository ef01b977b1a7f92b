/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The one port for HTTP and WebSocket: tells them apart by the first bytes, which stay in the socket for whoever gets it.
 * Invariant: an accepted socket is in exactly one place: undecided here, handed on, or closed. */
#include "gate.h"
#include "log.h"
#include "loop.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define WS_START "GET /ws/v1"       /* then a space or a '?' */
#define PEEK 11                     /* bytes: strlen(WS_START) + 1 */
#define LISTENERS_MAX 4             /* addresses a name may stand for */
#define ACCEPTS_A_TURN 64           /* so that a flood of connects does not hold the loop */
#define BACKLOG 511                 /* connects the kernel keeps for us */
#define FULL_PAUSE_MS 10            /* when the undecided are many and young */
#define ACCEPT_PAUSE_MS 100         /* when descriptors or memory have run out */

struct undecided { int fd; int64_t until_ms; struct sockaddr_storage peer; socklen_t peer_len; };

struct gate {
    struct loop *loop;
    gate_adopt_fn *http, *ws;
    void *user;
    gate_allow_fn *allow; /* NULL: everybody may */
    void *allow_user;
    int listeners[LISTENERS_MAX];
    int listener_count;
    struct undecided waiting[GATE_UNDECIDED_MAX]; /* oldest first */
    int waiting_count;
    struct loop_timer *expire;                    /* of the oldest */
    struct loop_timer *pause;                     /* set: listeners are not watched */
    bool short_of;                                /* descriptors or memory: told once, until an accept works */
};

enum verdict { WAIT, TO_HTTP, TO_WS, CLOSE };

/* Who gets the socket. `ended`: the peer sends no more. */
static enum verdict judge(const struct gate *g, int fd, bool ended)
{
    char b[PEEK];
    ssize_t n = recv(fd, b, sizeof b, MSG_PEEK | MSG_DONTWAIT);
    size_t known;

    if (n < 0) return errno == EAGAIN || errno == EINTR ? WAIT : CLOSE;
    if (n == 0) return CLOSE;
    known = (size_t)n < PEEK - 1 ? (size_t)n : PEEK - 1;
    if (!g->ws || memcmp(b, WS_START, known)) return TO_HTTP;
    if (n < PEEK) return ended ? TO_HTTP : WAIT;
    return b[PEEK - 1] == ' ' || b[PEEK - 1] == '?' ? TO_WS : TO_HTTP;
}

static void hand_on(struct gate *g, int fd, const struct sockaddr_storage *peer, socklen_t len, enum verdict v)
{
    int one = 1;
    if (v == CLOSE) {
        close(fd);
        return;
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &one, sizeof one);
    (v == TO_WS ? g->ws : g->http)(g->user, fd, (const struct sockaddr *)peer, len);
}

/* Takes the i-th undecided socket out and hands it on or closes it. */
static void decide(struct gate *g, int i, enum verdict v)
{
    struct undecided u = g->waiting[i];
    loop_unwatch(g->loop, u.fd);
    g->waiting_count--;
    memmove(&g->waiting[i], &g->waiting[i + 1], (size_t)(g->waiting_count - i) * sizeof u);
    hand_on(g, u.fd, &u.peer, u.peer_len, v);
}

static void on_bytes(void *user, int fd, uint32_t events)
{
    struct gate *g = user;
    enum verdict v = judge(g, fd, (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0);
    int i = 0;
    if (v == WAIT) return;
    while (i < g->waiting_count && g->waiting[i].fd != fd) i++;
    if (i < g->waiting_count) decide(g, i, v);
}

static void on_expire(void *user)
{
    struct gate *g = user;
    int64_t now_ms = loop_now_ms();
    while (g->waiting_count && g->waiting[0].until_ms <= now_ms) {
        enum verdict v = judge(g, g->waiting[0].fd, true); /* what little has come is for HTTP to refuse */
        decide(g, 0, v == WAIT ? CLOSE : v);
    }
    if (g->waiting_count) loop_timer_set(g->expire, g->waiting[0].until_ms - now_ms);
}

/* Keeps a socket that has not said enough. */
static void keep(struct gate *g, int fd, const struct sockaddr_storage *peer, socklen_t len)
{
    int want = PEEK;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &want, sizeof want) || loop_watch(g->loop, fd, EPOLLIN | EPOLLRDHUP, on_bytes, g)) {
        close(fd);
        return;
    }
    if (!g->waiting_count) loop_timer_set(g->expire, GATE_UNDECIDED_MS);
    g->waiting[g->waiting_count++] = (struct undecided){ fd, loop_now_ms() + GATE_UNDECIDED_MS, *peer, len };
}

static void pause_accepting(struct gate *g, int64_t ms)
{
    for (int i = 0; i < g->listener_count; i++) loop_unwatch(g->loop, g->listeners[i]);
    loop_timer_set(g->pause, ms);
}

/* Room for one more undecided socket. Not yet: the oldest has had too little time, so the next connects stay in the kernel for a moment. */
static bool make_room(struct gate *g)
{
    if (g->waiting_count < GATE_UNDECIDED_MAX) return true;
    if (g->waiting[0].until_ms - GATE_UNDECIDED_MS + GATE_GRACE_MS > loop_now_ms()) return false;
    decide(g, 0, CLOSE);
    return true;
}

static void on_connect(void *user, int listener, uint32_t events)
{
    struct gate *g = user;
    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        if (!make_room(g)) {
            pause_accepting(g, FULL_PAUSE_MS);
            return;
        }
        struct sockaddr_storage peer;
        socklen_t len = sizeof peer;
        int one = 1, fd = accept4(listener, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        enum verdict v;
        if (fd < 0 && errno == EAGAIN) return;
        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
            if (!g->short_of) log_line(LOG_WARNING, "gate", "accept error=\"%s\" pause_ms=%d", strerror(errno), ACCEPT_PAUSE_MS);
            g->short_of = true;
            pause_accepting(g, ACCEPT_PAUSE_MS);
            return;
        }
        if (fd < 0) continue; /* that connection is gone; the next may be good */
        g->short_of = false;
        if (g->allow && !g->allow(g->allow_user, (const struct sockaddr *)&peer)) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        v = judge(g, fd, false);
        if (v == WAIT) keep(g, fd, &peer, len);
        else hand_on(g, fd, &peer, len, v);
    }
}

/* 0, or -1 with errno. */
static int watch_listeners(struct gate *g)
{
    for (int i = 0; i < g->listener_count; i++)
        if (loop_watch(g->loop, g->listeners[i], EPOLLIN, on_connect, g)) return -1;
    return 0;
}

static void on_pause_over(void *user)
{
    struct gate *g = user;
    if (watch_listeners(g)) loop_timer_set(g->pause, ACCEPT_PAUSE_MS);
}

/* 0, or an errno. A name with several addresses keeps the families apart, so that none takes the other's port. */
static int listen_on(struct gate *g, const struct addrinfo *a, int v6_only)
{
    int one = 1, fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), error;
    if (fd < 0) return errno;
    if (a->ai_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof v6_only);
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) || bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, BACKLOG)) {
        error = errno;
        close(fd);
        return error;
    }
    g->listeners[g->listener_count++] = fd;
    return 0;
}

/* Some hosts files give a name the same address twice. */
static bool repeated(const struct addrinfo *list, const struct addrinfo *a)
{
    for (; list != a; list = list->ai_next)
        if (list->ai_addrlen == a->ai_addrlen && !memcmp(list->ai_addr, a->ai_addr, a->ai_addrlen)) return true;
    return false;
}

/* Listens on every address of host; one the machine does not have (IPv6 switched off) is passed over while another works. 0, or an errno. */
static int listen_all(struct gate *g, const struct addrinfo *list)
{
    int missing = 0;
    for (const struct addrinfo *a = list; a && g->listener_count < LISTENERS_MAX; a = a->ai_next) {
        int error = repeated(list, a) ? 0 : listen_on(g, a, list->ai_next != NULL);
        if (error == EADDRNOTAVAIL || error == EAFNOSUPPORT) missing = error;
        else if (error) return error;
    }
    return g->listener_count ? 0 : missing;
}

struct gate *gate_open(struct loop *l, const char *host, int port, gate_adopt_fn *http, gate_adopt_fn *ws, void *user, char *err, unsigned err_size)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV }, *list = NULL;
    struct gate *g = calloc(1, sizeof *g);
    char service[16];
    int rc, error = ENOMEM;

    snprintf(service, sizeof service, "%d", port);
    rc = getaddrinfo(host, service, &hints, &list);
    if (rc) {
        snprintf(err, err_size, "%s: %s", host, gai_strerror(rc));
        goto out;
    }
    if (g) {
        *g = (struct gate){ .loop = l, .http = http, .ws = ws, .user = user };
        g->expire = loop_timer_new(l, on_expire, g);
        g->pause = loop_timer_new(l, on_pause_over, g);
        error = g->expire && g->pause ? listen_all(g, list) : ENOMEM;
        if (!error && watch_listeners(g)) error = errno;
    }
    freeaddrinfo(list);
    if (!error) return g;
    snprintf(err, err_size, "%s port %d: %s", host, port, strerror(error));
out:
    gate_close(g);
    return NULL;
}

void gate_allow(struct gate *g, gate_allow_fn *allow, void *user)
{
    g->allow = allow;
    g->allow_user = user;
}

void gate_close(struct gate *g)
{
    if (!g) return;
    while (g->waiting_count) decide(g, g->waiting_count - 1, CLOSE);
    for (int i = 0; i < g->listener_count; i++) {
        loop_unwatch(g->loop, g->listeners[i]);
        close(g->listeners[i]);
    }
    loop_timer_free(g->expire);
    loop_timer_free(g->pause);
    free(g);
}
