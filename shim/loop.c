/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The loop for all rooms: libwebsockets polls, and the one foreign descriptor it polls is our epoll, on which everything else hangs.
 * Invariant: an event reaches a watcher only if that watcher is the one that was set when the event was fetched. */
#include "loop.h"
#include "log.h"

#include <errno.h>
#include <libwebsockets.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_A_TURN 64
/* libwebsockets keeps a table of so many descriptors; only WebSockets and our epoll stand in it. */
#define LWS_DESCRIPTORS_MAX 1024

struct watch {
    loop_fd_fn *fn;
    void *user;
    uint32_t generation;
    bool last;
    uint64_t ran; /* last: the turn in which it was told */
};

struct loop {
    struct lws_context *lws;
    struct watch *watches; /* by descriptor */
    int watch_count;
    uint64_t turns;
    int epoll_fd;          /* closed by libwebsockets once adopted */
    int signal_fd;
    bool stop;
    loop_turn_fn *told;
    void *told_user;
    int64_t began_us;      /* of the work after the last wait; 0: none yet */
    int64_t worked_us;     /* in this turn, before began_us */
};

struct loop_timer { lws_sorted_usec_list_t sul; struct loop *loop; loop_timer_fn *fn; void *user; };

static void on_lws_log(int level, const char *line)
{
    size_t n = strcspn(line, "\r\n");
    log_line(level == LLL_ERR ? LOG_WARNING : LOG_DEBUG, "lws", "%.*s", (int)n, line); /* it calls what a client did wrong an error */
}

/* What an event carries: the descriptor, and whose turn of watching it is. */
static uint64_t tag(int fd, uint32_t generation)
{
    return (uint64_t)generation << 32 | (uint32_t)fd;
}

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void tell_turn(struct loop *l)
{
    if (l->worked_us && l->told) l->told(l->told_user, l->worked_us);
    l->worked_us = 0;
}

/* libwebsockets runs ripe timers, then waits, then tells what has come: the timers of its next round belong to this turn. */
void loop_works(struct loop *l)
{
    if (l->began_us) return;
    tell_turn(l);
    l->began_us = now_us();
}

static struct watch *watch_of(struct loop *l, const struct epoll_event *e)
{
    return &l->watches[(uint32_t)e->data.u64];
}

static void tell(struct loop *l, const struct epoll_event *e)
{
    struct watch w = *watch_of(l, e); /* fn may move the table */
    if (w.fn && w.generation == (uint32_t)(e->data.u64 >> 32)) w.fn(w.user, (int)(uint32_t)e->data.u64, e->events);
}

/* Tells the events that are there now. Callbacks may watch, unwatch and close what they like, so each event is looked up anew. */
static void dispatch(struct loop *l)
{
    struct epoll_event e[EVENTS_A_TURN], *last = NULL;
    int n;
    loop_works(l);
    l->turns++;
    n = epoll_wait(l->epoll_fd, e, EVENTS_A_TURN, 0);
    for (int i = 0; i < n; i++) {
        if (!watch_of(l, &e[i])->last) tell(l, &e[i]);
        else if (!last || watch_of(l, &e[i])->ran < watch_of(l, last)->ran) last = &e[i];
    }
    if (!last) return;
    watch_of(l, last)->ran = l->turns; /* the others are there again in the next turn */
    tell(l, last);
}

static int on_lws(struct lws *wsi, enum lws_callback_reasons why, void *user, void *in, size_t len)
{
    (void)user, (void)in, (void)len;
    if (why == LWS_CALLBACK_RAW_RX_FILE) dispatch(lws_context_user(lws_get_context(wsi)));
    return 0;
}

static const struct lws_protocols protocols[] = { { .name = "loop", .callback = on_lws }, { .name = NULL } };

static void on_signal(void *user, int fd, uint32_t events)
{
    struct loop *l = user;
    struct signalfd_siginfo s;
    (void)events;
    if (read(fd, &s, sizeof s) == (ssize_t)sizeof s) loop_stop(l);
}

/* SIGINT and SIGTERM become events of the loop, here and in threads started later. */
static int open_signals(struct loop *l)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    if (sigprocmask(SIG_BLOCK, &set, NULL)) return -1;
    signal(SIGPIPE, SIG_IGN);
    l->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return l->signal_fd < 0 ? -1 : loop_watch(l, l->signal_fd, EPOLLIN, on_signal, l);
}

static int open_lws(struct loop *l)
{
    struct lws_context_creation_info info = {
        .port = CONTEXT_PORT_NO_LISTEN, .protocols = protocols, .user = l, .gid = -1, .uid = -1,
        .fd_limit_per_thread = LWS_DESCRIPTORS_MAX, .options = LWS_SERVER_OPTION_VALIDATE_UTF8,
    };
    lws_sock_file_fd_type u = { .filefd = (lws_filefd_type)l->epoll_fd };

    lws_set_log_level(LLL_ERR | LLL_WARN, on_lws_log);
    l->lws = lws_create_context(&info);
    if (l->lws && lws_adopt_descriptor_vhost(lws_get_vhost_by_name(l->lws, "default"), LWS_ADOPT_RAW_FILE_DESC, u, protocols[0].name, NULL)) return 0;
    errno = ENOMEM;
    return -1;
}

struct loop *loop_new(void)
{
    struct loop *l = calloc(1, sizeof *l);
    if (!l) return NULL;
    l->signal_fd = -1;
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (l->epoll_fd < 0) {
        free(l);
        return NULL;
    }
    if (open_signals(l) || open_lws(l)) {
        int saved = errno;
        if (!l->lws) close(l->epoll_fd);
        loop_free(l);
        errno = saved;
        return NULL;
    }
    return l;
}

void loop_free(struct loop *l)
{
    if (!l) return;
    if (l->lws) lws_context_destroy(l->lws); /* closes the epoll descriptor too */
    if (l->signal_fd >= 0) close(l->signal_fd);
    free(l->watches);
    free(l);
}

int loop_run(struct loop *l)
{
    while (!l->stop && lws_service(l->lws, 0) >= 0) {
        if (l->began_us) l->worked_us = now_us() - l->began_us + 1; /* so that a short turn counts too */
        else tell_turn(l);                                          /* a wait that ended with nothing but time */
        l->began_us = 0;
    }
    return 0;
}

void loop_stop(struct loop *l)
{
    l->stop = true;
    lws_cancel_service(l->lws);
}

int64_t loop_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int watch(struct loop *l, int fd, uint32_t epoll_events, loop_fd_fn *fn, void *user, bool last)
{
    struct epoll_event e = { .events = epoll_events };
    struct watch *w;

    if (fd < 0) {
        errno = EBADF;
        return -1;
    }
    if (fd >= l->watch_count) {
        int count = fd + 64;
        struct watch *grown = realloc(l->watches, (size_t)count * sizeof *grown);
        if (!grown) return -1;
        memset(grown + l->watch_count, 0, (size_t)(count - l->watch_count) * sizeof *grown);
        l->watches = grown;
        l->watch_count = count;
    }
    w = &l->watches[fd];
    e.data.u64 = tag(fd, w->generation);
    if (epoll_ctl(l->epoll_fd, w->fn ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &e)) return -1;
    w->fn = fn;
    w->user = user;
    w->last = last;
    return 0;
}

int loop_watch(struct loop *l, int fd, uint32_t epoll_events, loop_fd_fn *fn, void *user)
{
    return watch(l, fd, epoll_events, fn, user, false);
}

int loop_watch_last(struct loop *l, int fd, uint32_t epoll_events, loop_fd_fn *fn, void *user)
{
    return watch(l, fd, epoll_events, fn, user, true);
}

void loop_unwatch(struct loop *l, int fd)
{
    if (fd < 0 || fd >= l->watch_count || !l->watches[fd].fn) return;
    epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    l->watches[fd].fn = NULL;
    l->watches[fd].generation++;
}

static void on_timer(lws_sorted_usec_list_t *sul)
{
    struct loop_timer *t = lws_container_of(sul, struct loop_timer, sul);
    struct loop *l = t->loop; /* fn may free the timer */
    int64_t began_us = now_us();
    t->fn(t->user);
    if (!l->began_us) l->worked_us += now_us() - began_us; /* else the whole of it is measured */
}

struct loop_timer *loop_timer_new(struct loop *l, loop_timer_fn *fn, void *user)
{
    struct loop_timer *t = calloc(1, sizeof *t);
    if (t) *t = (struct loop_timer){ .loop = l, .fn = fn, .user = user };
    return t;
}

void loop_timer_set(struct loop_timer *t, int64_t ms)
{
    /* One microsecond, not none: a timer set by its own callback must not keep the turn from ending. */
    lws_sul_schedule(t->loop->lws, 0, &t->sul, on_timer, ms > 0 ? (lws_usec_t)ms * LWS_US_PER_MS : 1);
}

void loop_timer_cancel(struct loop_timer *t)
{
    if (t) lws_sul_cancel(&t->sul);
}

void loop_timer_free(struct loop_timer *t)
{
    loop_timer_cancel(t);
    free(t);
}

void loop_on_turn(struct loop *l, loop_turn_fn *told, void *user)
{
    l->told = told;
    l->told_user = user;
}

struct lws_context *loop_lws(struct loop *l)
{
    return l->lws;
}
