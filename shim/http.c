/* SPDX-License-Identifier: GPL-3.0-or-later */
/* HTTP for app.c by libmicrohttpd (MHD), driven by our loop: whole requests in, one reply each out.
 * Invariant: a connection stays suspended exactly while its request is WAITING. */
#include "http.h"
#include "log.h"
#include "loop.h"

#include <microhttpd.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define BODY_KEPT_BYTES 4096     /* a body's buffer up to this stays with its connection */
#define READ_AWAY_FACTOR 64      /* a body of more than body_max times this is not read to its end: the connection is closed */
#define MEMORY_BYTES 16384       /* of one connection: headers, and the reply's headers */
#define SLACK 64                 /* connections told to go that MHD still counts */
#define SWEEP_MS 5000            /* between two looks for connections whose time is over */
#define SHARES 8                 /* daemons of MHD that have the connections */
#define SHARE_FILL 8             /* connections before the next is begun with */
#define TURNS_MAX 4              /* of MHD in a row while it has more to do; then others come first */

enum state {
    IDLE,     /* no request, or its headers are still coming */
    READING,  /* its body is coming */
    ASKING,   /* inside on_request */
    WAITING,  /* suspended, http_reply to come */
    ANSWERED, /* http_reply has come */
    GONE,     /* the client left while it was WAITING */
};

/* One a connection, used again for each of its requests. */
struct http_request {
    struct http *http;
    struct share *share;
    struct MHD_Connection *connection;
    int fd;
    enum state state;
    bool hung_up;          /* the client sends no more */
    const char *uri;       /* as MHD parses it; to know the path from an argument while unescaping */
    const char *method, *path;
    char *body;
    size_t body_n, body_size;
    uint64_t read_away;    /* bytes of a body that is too large */
    void *slot;
    struct MHD_Response *response; /* ours until queued */
    unsigned status;
    struct http_request *prev, *next; /* while WAITING */
    struct http_request *older, *newer;
    int64_t since_ms;      /* when it last got on: connected, brought headers, got its reply */
    bool told;             /* to go */
};

/* A daemon of MHD with some of the connections. MHD_run does all that these have to do, and nothing of others comes between. */
struct share {
    struct http *http;
    struct MHD_Daemon *mhd;
    int epoll_fd;              /* MHD's; -1: not watched */
    unsigned connections;
    struct loop_timer *timer;
    int64_t due_ms;            /* when the timer fires; 0: not set */
    bool resumed;              /* a connection was resumed, and MHD has not run since */
};

struct http {
    struct loop *loop;
    struct share shares[SHARES];
    struct http_limits limits;
    http_on_request *on_request;
    http_on_gone *on_gone;
    void *user;
    struct http_request *waiting;
    unsigned waiting_n;
    struct http_request *oldest, *newest; /* all, by when they were last done with a request */
    struct loop_timer *sweep;
    bool closing;
};

/* Makes a turn come in `ms`. A timer that is set for earlier stays: the turn it makes sets the right one, so a busy server does not move it with each
 * request. */
static void turn_in(struct share *s, int64_t ms)
{
    int64_t due_ms = loop_now_ms() + ms;
    if (s->due_ms && s->due_ms <= due_ms) return;
    s->due_ms = due_ms;
    loop_timer_set(s->timer, ms);
}

/* Runs MHD and sets the timer for what it has to do by itself. */
static void turn(struct share *s)
{
    MHD_UNSIGNED_LONG_LONG ms = 0;
    bool timed, more;
    int turns = 0;

    do {
        s->resumed = false;
        MHD_run(s->mhd);
        timed = MHD_get_timeout(s->mhd, &ms) == MHD_YES;
        more = s->resumed || (timed && !ms);
    } while (more && ++turns < TURNS_MAX);
    if (more) turn_in(s, 0);
    else if (timed) turn_in(s, (int64_t)ms + 1); /* MHD counts a millisecond as passed only after it */
}

static void on_timer(void *user)
{
    struct share *s = user;
    s->due_ms = 0;
    turn(s);
}

static void on_mhd(void *user, int fd, uint32_t events)
{
    (void)fd, (void)events;
    turn(user);
}

static void on_mhd_log(void *user, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
static void on_mhd_log(void *user, const char *fmt, va_list ap)
{
    char text[256];
    (void)user;
    vsnprintf(text, sizeof text, fmt, ap);
    text[strcspn(text, "\n")] = 0;
    log_line(LOG_DEBUG, "http", "%s", text); /* what clients did wrong: nothing an operator can act on */
}

/* ---- connections whose time is over ---- */

static void leave_line(struct http_request *r)
{
    struct http *h = r->http;
    *(r->older ? &r->older->newer : &h->oldest) = r->newer;
    *(r->newer ? &r->newer->older : &h->newest) = r->older;
}

static void join_line(struct http_request *r)
{
    struct http *h = r->http;
    r->since_ms = loop_now_ms();
    r->older = h->newest, r->newer = NULL;
    *(h->newest ? &h->newest->newer : &h->oldest) = r;
    h->newest = r;
}

/* Whether it keeps us, not we it. */
static bool idles(const struct http_request *r)
{
    return !r->told && r->state != WAITING && r->state != ASKING && r->state != GONE;
}

/* MHD sees the end of the connection at its next turn and closes it. */
static void tell_to_go(struct http_request *r)
{
    r->told = true;
    shutdown(r->fd, SHUT_RDWR);
}

static void on_sweep(void *user)
{
    struct http *h = user;
    int64_t since_ms = loop_now_ms() - (int64_t)h->limits.idle_timeout_s * 1000;
    for (struct http_request *r = h->oldest; r; r = r->newer)
        if (idles(r) && r->since_ms < since_ms) tell_to_go(r);
    loop_timer_set(h->sweep, SWEEP_MS);
}

static void make_room(struct http *h)
{
    struct http_request *r = h->oldest;
    while (r && !idles(r)) r = r->newer;
    if (r) tell_to_go(r);
}

/* ---- suspended requests ---- */

/* MHD 0.9.75 without a thread of its own has nothing that wakes its epoll for a resumed connection, so the turn is ours to make: the next, never inside the
 * caller. */
static void resume(struct http_request *r)
{
    struct share *s = r->share;
    MHD_resume_connection(r->connection);
    if (!s->resumed) turn_in(s, 0);
    s->resumed = true;
}

static void end_wait(struct http_request *r, enum state state)
{
    struct http *h = r->http;
    *(r->prev ? &r->prev->next : &h->waiting) = r->next;
    if (r->next) r->next->prev = r->prev;
    h->waiting_n--;
    r->prev = r->next = NULL;
    r->state = state;
}

static void give_up(struct http_request *r)
{
    end_wait(r, GONE);
    r->http->on_gone(r->http->user, r);
    resume(r); /* then on_access ends it */
}

/* ---- what the socket tells beside MHD ---- */

static void on_socket(void *user, int fd, uint32_t events);

/* Tells what comes, once, and a hang-up once, and both once more after each call. */
static int watch_socket(struct http_request *r)
{
    return loop_watch(r->http->loop, r->fd, EPOLLIN | EPOLLRDHUP | EPOLLET, on_socket, r);
}

static bool begins_urgent(const struct http *h, int fd)
{
    char b[HTTP_URGENT_MAX];
    size_t n = strlen(h->limits.urgent);
    return recv(fd, b, n, MSG_PEEK | MSG_DONTWAIT) == (ssize_t)n && !memcmp(b, h->limits.urgent, n);
}

/* The client sends no more. MHD does not look at a suspended socket, so that is the one way to know that nobody waits for the reply; a client that closed
 * only its sending side looks the same as one that left, and is treated so. MHD also misses an end that came together with the last bytes: once these are
 * read, a suspend and a resume make it look again. */
static void on_hang_up(struct http_request *r)
{
    char c;
    r->hung_up = true;
    if (r->state == WAITING) give_up(r);
    else if (r->state == ANSWERED) return; /* on_completed asks again */
    else if (recv(r->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) > 0) watch_socket(r);
    else {
        MHD_suspend_connection(r->connection);
        resume(r);
    }
}

static void on_socket(void *user, int fd, uint32_t events)
{
    struct http_request *r = user;
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) on_hang_up(r);
    else if (r->state == IDLE && begins_urgent(r->http, fd)) turn(r->share); /* r may be gone then */
}

static void begin_wait(struct http_request *r)
{
    struct http *h = r->http;
    r->state = WAITING;
    r->prev = NULL;
    r->next = h->waiting;
    if (r->next) r->next->prev = r;
    h->waiting = r;
    h->waiting_n++;
    MHD_suspend_connection(r->connection);
    if (r->hung_up && watch_socket(r)) log_line(LOG_WARNING, "http", "watch failed: a client that leaves is seen only at the reply");
}

/* ---- MHD's callbacks ---- */

static struct http_request *request_of(struct MHD_Connection *c)
{
    const union MHD_ConnectionInfo *i = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return i ? i->socket_context : NULL;
}

static void on_connection(void *user, struct MHD_Connection *c, void **slot, enum MHD_ConnectionNotificationCode what)
{
    struct share *s = user;
    struct http *h = s->http;
    struct http_request *r = *slot;
    const union MHD_ConnectionInfo *i;

    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        s->connections++;
        i = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
        r = i ? calloc(1, sizeof *r) : NULL; /* without one every request of the connection closes it */
        *slot = r;
        if (!r) return;
        *r = (struct http_request){ .http = h, .share = s, .connection = c, .fd = i->connect_fd };
        join_line(r);
        if (watch_socket(r)) log_line(LOG_WARNING, "http", "watch failed: a client that leaves is seen only at the reply");
        return;
    }
    s->connections--;
    if (r) {
        leave_line(r);
        loop_unwatch(h->loop, r->fd);
        free(r->body);
    }
    free(r);
    *slot = NULL;
}

/* Comes before the URI is taken apart; what it gives is the request's context in the other callbacks. */
static void *on_uri(void *user, const char *uri, struct MHD_Connection *c)
{
    struct http_request *r = request_of(c);
    (void)user;
    if (r) r->uri = uri;
    return r;
}

static int hex(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

static bool unreserved(int c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' || c == '.' || c == '_' || c == '~';
}

/* In a path only what needs no escape is unescaped, so %2F, %00 and the like stay as they are and match no route. In an argument all but %00,
 * which would cut it short. */
static size_t on_unescape(void *user, struct MHD_Connection *c, char *s)
{
    char *in = strchr(s, '%'), *out = in;
    const struct http_request *r;
    bool path;

    (void)user;
    if (!in) return strlen(s);
    r = request_of(c);
    path = !r || s == r->uri;
    while (*in) {
        int high = *in == '%' ? hex(in[1]) : -1, low = high >= 0 ? hex(in[2]) : -1, value = high * 16 + low;
        if (low >= 0 && (path ? unreserved(value) : value != 0)) {
            *out++ = (char)value;
            in += 3;
        } else *out++ = *in++;
    }
    *out = 0;
    return (size_t)(out - s);
}

/* False: out of memory, or more than anyone may send. */
static bool add_body(struct http_request *r, const char *data, size_t n)
{
    const struct http_limits *limits = &r->http->limits;
    if (r->read_away || n > limits->body_max - r->body_n) {
        free(r->body);
        r->body = NULL;
        r->body_n = r->body_size = 0;
        r->read_away += n;
        return r->read_away / READ_AWAY_FACTOR <= limits->body_max;
    }
    if (r->body_n + n >= r->body_size) { /* one byte more, for the 0 at the end */
        size_t size = (r->body_n + n + 1) * 2;
        char *grown;
        if (size < 512) size = 512;
        if (size > limits->body_max + 1) size = limits->body_max + 1;
        grown = realloc(r->body, size);
        if (!grown) return false;
        r->body = grown;
        r->body_size = size;
    }
    memcpy(r->body + r->body_n, data, n);
    r->body_n += n;
    r->body[r->body_n] = 0;
    return true;
}

/* MHD's answer for an ANSWERED request. */
static enum MHD_Result send_reply(struct http_request *r)
{
    enum MHD_Result rc = MHD_NO;
    if (r->response) rc = MHD_queue_response(r->connection, r->status, r->response);
    if (r->response) MHD_destroy_response(r->response);
    r->response = NULL;
    return rc;
}

/* MHD calls it after the headers, for each piece of the body, after the whole request, and after a resume. A reply after the headers would cost the
 * connection its keep-alive, so the request is told at its end also when it has no body. */
static enum MHD_Result on_access(void *user, struct MHD_Connection *c, const char *url, const char *method, const char *version, const char *data, size_t *n,
                                 void **slot)
{
    struct http *h = user;
    struct http_request *r = *slot;

    (void)c, (void)version;
    if (!r || r->state == GONE) return MHD_NO;
    if (r->state == ANSWERED) return send_reply(r);
    if (r->state == IDLE) {
        r->state = READING;
        r->since_ms = loop_now_ms();
        r->method = method;
        r->path = url;
        return MHD_YES;
    }
    if (*n) {
        size_t count = *n;
        *n = 0;
        return add_body(r, data, count) ? MHD_YES : MHD_NO;
    }
    if (h->closing) return MHD_NO;
    r->state = ASKING;
    h->on_request(h->user, r);
    if (r->state == ANSWERED) return send_reply(r);
    begin_wait(r);
    return MHD_YES;
}

/* The request is over, with its reply sent or not. */
static void on_completed(void *user, struct MHD_Connection *c, void **slot, enum MHD_RequestTerminationCode why)
{
    struct http_request *r = *slot;
    (void)user, (void)c, (void)why;
    if (!r) return;
    if (r->state == WAITING) {
        end_wait(r, GONE);
        r->http->on_gone(r->http->user, r);
    }
    if (r->response) MHD_destroy_response(r->response);
    if (r->body_size > BODY_KEPT_BYTES) {
        free(r->body);
        r->body = NULL;
        r->body_size = 0;
    }
    leave_line(r);
    *r = (struct http_request){ .http = r->http, .share = r->share, .connection = r->connection, .fd = r->fd, .hung_up = r->hung_up, .told = r->told,
                                .body = r->body, .body_size = r->body_size };
    join_line(r);
    *slot = NULL;
    if (r->hung_up) watch_socket(r);
}

/* ---- shares ---- */

/* 0, or -1. */
static int share_start(struct share *s, struct http *h)
{
    const unsigned flags = MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    const union MHD_DaemonInfo *info;

    *s = (struct share){ .http = h, .epoll_fd = -1, .timer = loop_timer_new(h->loop, on_timer, s) };
    s->mhd = MHD_start_daemon(flags, 0, NULL, NULL, on_access, h, MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log, NULL, MHD_OPTION_NOTIFY_COMPLETED, on_completed, h,
                              MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_URI_LOG_CALLBACK, on_uri, h, MHD_OPTION_UNESCAPE_CALLBACK, on_unescape, h,
                              MHD_OPTION_CONNECTION_TIMEOUT, h->limits.idle_timeout_s, MHD_OPTION_CONNECTION_LIMIT, h->limits.connections + SLACK,
                              MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY_BYTES, MHD_OPTION_END);
    info = s->mhd ? MHD_get_daemon_info(s->mhd, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!s->timer || !info || loop_watch_last(h->loop, info->epoll_fd, EPOLLIN, on_mhd, s)) return -1;
    s->epoll_fd = info->epoll_fd;
    return 0;
}

static void share_stop(struct share *s)
{
    if (s->mhd) {
        for (int i = 0; i < TURNS_MAX; i++) MHD_run(s->mhd); /* replies made just before leave */
        if (s->epoll_fd >= 0) loop_unwatch(s->http->loop, s->epoll_fd);
        MHD_stop_daemon(s->mhd);
    }
    loop_timer_free(s->timer);
}

/* The first with room: a few connections in one share cost less than the same in several. */
static struct share *share_for_one_more(struct http *h)
{
    struct share *least = h->shares;
    for (struct share *s = h->shares; s < h->shares + SHARES; s++) {
        if (s->connections < SHARE_FILL) return s;
        if (s->connections < least->connections) least = s;
    }
    return least;
}

/* ---- public ---- */

struct http *http_new(struct loop *l, const struct http_limits *limits, http_on_request *on_request, http_on_gone *on_gone, void *user)
{
    struct http *h = calloc(1, sizeof *h);
    int failed = 0;

    if (!h) return NULL;
    *h = (struct http){ .loop = l, .limits = *limits, .on_request = on_request, .on_gone = on_gone, .user = user };
    for (int i = 0; i < SHARES; i++) failed |= share_start(&h->shares[i], h);
    h->sweep = loop_timer_new(l, on_sweep, h);
    if (h->sweep && !failed) {
        loop_timer_set(h->sweep, SWEEP_MS);
        return h;
    }
    http_free(h);
    return NULL;
}

void http_free(struct http *h)
{
    if (!h) return;
    h->closing = true;
    while (h->waiting) give_up(h->waiting);
    for (int i = 0; i < SHARES; i++) share_stop(&h->shares[i]);
    loop_timer_free(h->sweep);
    free(h);
}

void http_adopt(struct http *h, int fd, const struct sockaddr *peer, socklen_t len)
{
    struct share *s = share_for_one_more(h);
    bool urgent = begins_urgent(h, fd);

    if (http_connections(h) >= h->limits.connections) make_room(h);
    if (http_connections(h) >= h->limits.connections + SLACK) { /* full of requests that wait */
        close(fd);
        log_line(LOG_DEBUG, "http", "refused connections=%u", http_connections(h));
    } else if (MHD_add_connection(s->mhd, fd, peer, len) != MHD_YES) { /* it has closed it */
        log_line(LOG_WARNING, "http", "refused: out of memory");
    } else if (urgent) {
        turn(s); /* else its epoll shows it at the next turn */
    }
}

const char *http_method(const struct http_request *r)
{
    return r->method;
}

const char *http_path(const struct http_request *r)
{
    return r->path;
}

const struct sockaddr *http_peer(const struct http_request *r)
{
    return MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr;
}

const char *http_header(const struct http_request *r, const char *name)
{
    return MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name);
}

const char *http_body(const struct http_request *r, size_t *n)
{
    *n = r->body_n;
    return r->body_n ? r->body : "";
}

bool http_body_too_large(const struct http_request *r)
{
    return r->read_away > 0;
}

struct query { http_query_fn *fn; void *user; };

static enum MHD_Result on_argument(void *user, enum MHD_ValueKind kind, const char *name, const char *value)
{
    const struct query *q = user;
    (void)kind;
    return q->fn(q->user, name, value) ? MHD_YES : MHD_NO;
}

void http_query(const struct http_request *r, http_query_fn *fn, void *user)
{
    struct query q = { fn, user };
    MHD_get_connection_values(r->connection, MHD_GET_ARGUMENT_KIND, on_argument, &q);
}

void **http_slot(struct http_request *r)
{
    return &r->slot;
}

void http_reply(struct http_request *r, int status, const char *content_type, char *body, size_t n, const struct http_header *headers)
{
    struct MHD_Response *answer;

    if (body) answer = MHD_create_response_from_buffer(n, body, MHD_RESPMEM_MUST_FREE);
    else answer = MHD_create_response_from_buffer(0, (void *)(uintptr_t) "", MHD_RESPMEM_PERSISTENT);
    if (!answer) free(body); /* out of memory: the connection is closed instead */
    if (answer && content_type) MHD_add_response_header(answer, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    for (; answer && headers && headers->name; headers++)
        if (MHD_add_response_header(answer, headers->name, headers->value) != MHD_YES) log_line(LOG_WARNING, "http", "header left out name=%s", headers->name);
    r->response = answer;
    r->status = (unsigned)status;
    if (r->state == WAITING) {
        end_wait(r, ANSWERED);
        r->since_ms = loop_now_ms();
        resume(r);
    } else r->state = ANSWERED;
}

unsigned http_waiting(const struct http *h)
{
    return h->waiting_n;
}

unsigned http_connections(const struct http *h)
{
    unsigned count = 0;
    for (int i = 0; i < SHARES; i++) count += h->shares[i].connections;
    return count;
}
