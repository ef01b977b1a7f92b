/* SPDX-License-Identifier: GPL-3.0-or-later */
/* WebSocket sessions of /ws/v1 by libwebsockets, for app through ws_rpc.c and events.c. Invariant: a session is freed by libwebsockets alone, after on_closed;
 * everybody else only marks it to be closed. */
#include "ws.h"

#include <libwebsockets.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "answer.h"
#include "app.h"
#include "events.h"
#include "guard.h"
#include "log.h"
#include "loop.h"
#include "ws_rpc.h"

_Static_assert(LWS_PRE <= EVENTS_ROOM, "libwebsockets writes a frame's head before its text");

#define CLOSE_TRY_AGAIN_LATER 1013 /* of RFC 6455's registry; libwebsockets has no name for it */
#define PING_S 25            /* without a sign of life, then a ping; */
#define HANG_UP_S 45         /* and so long without its pong, then the session is over */
#define RX_BYTES 1024        /* libwebsockets keeps so many for each session */
#define KEPT_BYTES 4096      /* a longer message's buffer is given back after it */
#define SEND_BUFFER 65536    /* bytes asked of the kernel: what a client that does not read can hold back there */
#define SWEEP_MS 1000        /* between looks for stalled sessions */
#define HEADER_MAX 256       /* bytes of a header that is looked at */
#define KEY_HEADER "x-api-key:"
#define TOKEN_ARGUMENT "token="

/* A response that waits. */
struct chunk { struct chunk *next; size_t n; unsigned char room[]; /* LWS_PRE, then the text */ };

struct session {
    struct ws *ws;
    struct lws *wsi;
    struct session *next, **at;
    struct events_subscriber subscriber;
    struct ws_rpc rpc;
    struct auth_who who;
    struct sockaddr_storage peer;
    struct chunk *first, **last;
    size_t waiting_n;          /* bytes of chunks */
    char *in;                  /* the message so far */
    size_t in_n, in_size;
    int64_t waiting_since_ms;  /* since then something waits and nothing could be written; 0: nothing waits */
    int code;                  /* to close with; 0: stays open */
    const char *why;
    bool over;                 /* nothing is taken or told any more */
    char id[ANSWER_ID];
};

struct ws {
    struct loop *loop;
    struct app *app;
    struct guard *guard;
    struct lws_vhost *vhost;   /* freed with the loop, and this struct then */
    struct session *sessions;  /* till their socket is closed */
    size_t count;
    struct { struct lws *wsi; struct auth_who who; } handshakes[WS_HANDSHAKES_MAX]; /* who: of one that has been let in */
    struct loop_timer *sweep;
    struct answer_pool ids;
    bool closing, served; /* served: libwebsockets knows of it, and tells its end */
};

/* ---- the end of a session ---- */

static void chunks_free(struct session *s)
{
    while (s->first) {
        struct chunk *c = s->first;
        s->first = c->next;
        free(c);
    }
    s->last = &s->first;
    s->waiting_n = 0;
}

/* Nothing is taken from it or told to it any more; its socket may live on for the closing handshake. */
static void end(struct session *s)
{
    if (s->over)
        return;
    s->over = true;
    ws_rpc_fini(&s->rpc);
    chunks_free(s);
    free(s->in);
    s->in = NULL;
}

static void on_closed(struct session *s)
{
    end(s);
    *s->at = s->next;
    if (s->next)
        s->next->at = s->at;
    s->ws->count--;
}

/* The session is to be closed at its next chance to write. */
static void mark(struct session *s, int code, const char *why)
{
    if (s->code || s->over)
        return;
    s->code = code, s->why = why;
    log_line(code == CLOSE_TRY_AGAIN_LATER ? LOG_WARNING : LOG_DEBUG, "ws", "session=%s closed=%d why=\"%s\"", s->id, code, why);
    lws_callback_on_writable(s->wsi);
}

/* Says so to the client and ends; for a callback of libwebsockets to return. */
static int close_now(struct session *s)
{
    char why[124];
    int n = snprintf(why, sizeof why, "%s", s->why);
    lws_close_reason(s->wsi, (enum lws_close_status)s->code, (unsigned char *)why, (size_t)n);
    end(s);
    return -1;
}

/* ---- out ---- */

/* A session that waits to write and cannot: told once, then cut. */
static void on_sweep(void *user)
{
    struct ws *w = user;
    int64_t now_ms = loop_now_ms();
    struct session *next;
    for (struct session *s = w->sessions; s; s = next) {
        next = s->next;
        if (!auth_still(guard_auth(w->guard), &s->who))
            mark(s, LWS_CLOSE_STATUS_POLICY_VIOLATION, "its key has ended");
        if (!s->waiting_since_ms || now_ms - s->waiting_since_ms < WS_STALLED_MS)
            continue;
        mark(s, CLOSE_TRY_AGAIN_LATER, "too slow to read");
        if (now_ms - s->waiting_since_ms >= WS_STALLED_MS + WS_GRACE_MS)
            lws_set_timeout(s->wsi, PENDING_TIMEOUT_USER_REASON_BASE, LWS_TO_KILL_ASYNC);
    }
    if (w->sessions)
        loop_timer_set(w->sweep, SWEEP_MS);
}

static void wake(void *user)
{
    struct session *s = user;
    if (!s->waiting_since_ms)
        s->waiting_since_ms = loop_now_ms();
    lws_callback_on_writable(s->wsi);
}

static void on_send(void *user, const char *text, size_t n)
{
    struct session *s = user;
    if (s->code)
        return;
    struct chunk *c = s->waiting_n <= WS_WAITING_MAX ? malloc(sizeof *c + LWS_PRE + n) : NULL;
    if (!c) {
        mark(s, CLOSE_TRY_AGAIN_LATER, s->waiting_n > WS_WAITING_MAX ? "too many responses wait to be read" : "out of memory");
        return;
    }
    *c = (struct chunk){ .n = n };
    memcpy(c->room + LWS_PRE, text, n);
    *s->last = c, s->last = &c->next;
    s->waiting_n += n;
    wake(s);
}

static bool write_text(struct session *s, char *text, size_t n)
{
    return lws_write(s->wsi, (unsigned char *)text, n, LWS_WRITE_TEXT) >= (int)n;
}

/* Writes the next message. 1: written; 0: there was none; -1: the session is to end. */
static int write_next(struct session *s)
{
    struct chunk *c = s->first;
    struct events_message m;
    if (c) {
        bool written = write_text(s, (char *)c->room + LWS_PRE, c->n);
        s->waiting_n -= c->n;
        if (!(s->first = c->next))
            s->last = &s->first;
        free(c);
        return written ? 1 : -1;
    }
    switch (events_next(app_events(s->ws->app), &s->subscriber, &m)) {
    case EVENTS_NOTHING: return 0;
    case EVENTS_MESSAGE: return write_text(s, m.text, m.n) ? 1 : -1;
    case EVENTS_LOST: break;
    }
    mark(s, CLOSE_TRY_AGAIN_LATER, "too far behind");
    return -1;
}

/* One message a turn: with a hundred sessions a turn of several each would hold the loop. */
static int on_writable(struct session *s)
{
    int wrote = 0;
    if (s->over)
        return 0;
    if (!s->code)
        wrote = write_next(s);
    if (s->code)
        return close_now(s);
    if (wrote < 0) {
        end(s);
        return -1;
    }
    bool more = s->first || events_waiting(app_events(s->ws->app), &s->subscriber);
    s->waiting_since_ms = more ? loop_now_ms() : 0;
    if (more)
        lws_callback_on_writable(s->wsi);
    return 0;
}

/* ---- in ---- */

static bool reserve(struct session *s, size_t n)
{
    size_t size = n * 2 < WS_MESSAGE_MAX ? n * 2 : WS_MESSAGE_MAX;
    char *grown;
    if (n <= s->in_size)
        return true;
    if (!(grown = realloc(s->in, size)))
        return false;
    s->in = grown, s->in_size = size;
    return true;
}

static int on_receive(struct session *s, const void *data, size_t n)
{
    if (s->over || s->code)
        return 0;
    if (!auth_still(guard_auth(s->ws->guard), &s->who))
        mark(s, LWS_CLOSE_STATUS_POLICY_VIOLATION, "its key has ended");
    if (lws_frame_is_binary(s->wsi))
        mark(s, LWS_CLOSE_STATUS_UNACCEPTABLE_OPCODE, "messages are text");
    if (lws_is_first_fragment(s->wsi))
        s->in_n = 0;
    if (n > WS_MESSAGE_MAX - s->in_n)
        mark(s, LWS_CLOSE_STATUS_MESSAGE_TOO_LARGE, "a message may have at most 65536 bytes");
    else if (!reserve(s, s->in_n + n))
        mark(s, CLOSE_TRY_AGAIN_LATER, "out of memory");
    if (s->code)
        return close_now(s);
    if (n)
        memcpy(s->in + s->in_n, data, n);
    s->in_n += n;
    if (!lws_is_final_fragment(s->wsi) || lws_remaining_packet_payload(s->wsi))
        return 0;
    ws_rpc_message(&s->rpc, s->in_n ? s->in : "", s->in_n);
    s->in_n = 0;
    if (s->in_size > KEPT_BYTES) {
        free(s->in);
        s->in = NULL, s->in_size = 0;
    }
    return 0;
}

/* ---- the handshake ---- */

/* The place of a handshake; WS_HANDSHAKES_MAX: it has none. */
static size_t handshake_of(const struct ws *w, const struct lws *wsi)
{
    size_t i = 0;
    while (i < WS_HANDSHAKES_MAX && w->handshakes[i].wsi != wsi)
        i++;
    return i;
}

static void handshake_over(struct ws *w, const struct lws *wsi)
{
    size_t i = handshake_of(w, wsi);
    if (i < WS_HANDSHAKES_MAX)
        w->handshakes[i].wsi = NULL;
}

/* Answers instead of upgrading, and closes: for a callback of libwebsockets to return. */
static int refuse_error(struct ws *w, struct lws *wsi, int status, const char *head, const struct kp_error *e)
{
    char id[ANSWER_ID];
    struct kp_faults f;
    size_t n;
    kp_faults_init(&f);
    kp_faults_add(&f, e);
    answer_id(&w->ids, id);
    char *body = answer_error("unknown", id, &f, NULL, &n), *text = body ? malloc(LWS_PRE + n + 512) : NULL;
    if (text) {
        int all = snprintf(text + LWS_PRE, n + 512, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nX-Request-Id: %s\r\n"
                           "Connection: close\r\nContent-Length: %zu\r\n\r\n%s", status, head, id, n, body);
        lws_write(wsi, (unsigned char *)text + LWS_PRE, (size_t)all, LWS_WRITE_HTTP_HEADERS);
    }
    free(text);
    free(body);
    return -1;
}

static int refuse(struct ws *w, struct lws *wsi, int status, const char *head, enum kp_err code, const char *message)
{
    struct kp_error e;
    kp_error_set(&e, code, NULL, "%s", message);
    return refuse_error(w, wsi, status, head, &e);
}

static int need_upgrade(struct ws *w, struct lws *wsi)
{
    return refuse(w, wsi, 426, "Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13", KP_INVALID_REQUEST,
                  "/ws/v1 is a WebSocket of version 13");
}

/* A header's value; false when it is missing or longer than anyone needs. */
static bool header(struct lws *wsi, enum lws_token_indexes which, char value[HEADER_MAX])
{
    return lws_hdr_copy(wsi, value, HEADER_MAX, which) > 0;
}

/* Connection: keep-alive, Upgrade */
static bool lists_upgrade(const char *value)
{
    for (; *value; value += strcspn(value, ",")) {
        value += strspn(value, ", \t");
        if (!strncasecmp(value, "upgrade", 7) && (!value[7] || strchr(", \t", value[7])))
            return true;
    }
    return false;
}

static void peer_of(struct lws *wsi, struct sockaddr_storage *out)
{
    socklen_t n = sizeof *out;
    *out = (struct sockaddr_storage){ .ss_family = AF_UNSPEC };
    getpeername(lws_get_socket_fd(wsi), (struct sockaddr *)out, &n);
}

/* By the key in the header, or by the token of the URL, as a browser has it. */
static int on_enter(struct ws *w, struct lws *wsi)
{
    char text[HEADER_MAX] = "", head[64];
    struct sockaddr_storage peer;
    struct auth_refusal no;
    struct auth_who who;
    size_t i = handshake_of(w, wsi);
    const struct sockaddr *from = (const struct sockaddr *)&peer;
    peer_of(wsi, &peer);
    if (lws_hdr_custom_length(wsi, KEY_HEADER, (int)strlen(KEY_HEADER)) >= HEADER_MAX)
        text[0] = '-'; /* no key is so long */
    else
        lws_hdr_custom_copy(wsi, text, sizeof text, KEY_HEADER, (int)strlen(KEY_HEADER));
    struct auth *a = guard_auth(w->guard);
    const char *token = text[0] || !auth_asks(a) ? NULL : lws_get_urlarg_by_name(wsi, TOKEN_ARGUMENT, text, sizeof text);
    if ((token ? auth_enter_token(a, token, from, &who, &no) : auth_enter(a, text, from, &who, &no)) == KP_OK) {
        if (i < WS_HANDSHAKES_MAX)
            w->handshakes[i].who = who;
        return 0;
    }
    int status = kp_err_status(no.error.code);
    snprintf(head, sizeof head, "%s", status == 401 ? "Unauthorized" : "Too Many Requests");
    if (status == 429)
        snprintf(head, sizeof head, "Too Many Requests\r\nRetry-After: %d", no.retry_s);
    return refuse_error(w, wsi, status, head, &no.error);
}

/* 0: libwebsockets goes on with it. What it would refuse without an answer is refused here. */
static int on_upgrade(struct ws *w, struct lws *wsi, const char *to)
{
    char value[HEADER_MAX], host[HEADER_MAX];
    if (strcasecmp(to, "websocket") || !header(wsi, WSI_TOKEN_VERSION, value) || strcmp(value, "13"))
        return need_upgrade(w, wsi);
    if (!header(wsi, WSI_TOKEN_CONNECTION, value) || !lists_upgrade(value) || !header(wsi, WSI_TOKEN_KEY, value) || strlen(value) != 24 ||
        !header(wsi, WSI_TOKEN_HOST, host) || lws_hdr_total_length(wsi, WSI_TOKEN_PROTOCOL) > 0)
        return refuse(w, wsi, 400, "Bad Request", KP_INVALID_REQUEST, "the handshake lacks Connection, Sec-WebSocket-Key or Host, or asks for a subprotocol");
    struct kp_error e;
    if (guard_host(w->guard, host, &e) != KP_OK)
        return refuse_error(w, wsi, 403, "Forbidden", &e);
    if (lws_hdr_total_length(wsi, WSI_TOKEN_ORIGIN) > 0) {
        if (!header(wsi, WSI_TOKEN_ORIGIN, value) || cors_judge(guard_cors(w->guard), value, host) == CORS_FOREIGN)
            return refuse(w, wsi, 403, "Forbidden", KP_PERMISSION_DENIED, "WebSockets of pages of another origin are refused");
    }
    if (w->closing || w->count >= WS_SESSIONS_MAX)
        return refuse(w, wsi, 429, "Too Many Requests\r\nRetry-After: 5", KP_RATE_LIMIT_EXCEEDED, "100 WebSockets are open, and no more are served");
    return on_enter(w, wsi);
}

static int on_open(struct ws *w, struct lws *wsi, struct session *s)
{
    *s = (struct session){ .ws = w, .wsi = wsi, .next = w->sessions, .at = &w->sessions, .last = &s->first, .subscriber = { .wake = wake, .user = s } };
    if (s->next)
        s->next->at = &s->next;
    w->sessions = s;
    size_t i = handshake_of(w, wsi);
    s->who = i < WS_HANDSHAKES_MAX ? w->handshakes[i].who : (struct auth_who){ KP_PUBLIC, 0 };
    peer_of(wsi, &s->peer);
    handshake_over(w, wsi);
    if (!w->count++)
        loop_timer_set(w->sweep, SWEEP_MS);
    answer_id(&w->ids, s->id);
    ws_rpc_init(&s->rpc, &(struct ws_rpc){ .app = w->app, .ids = &w->ids, .subscriber = &s->subscriber, .guard = w->guard, .who = &s->who,
                                           .peer = (const struct sockaddr *)&s->peer, .send = on_send, .user = s });
    ws_rpc_hello(&s->rpc, s->id);
    log_line(LOG_DEBUG, "ws", "session=%s opened sessions=%zu", s->id, w->count);
    return 0;
}

static int on_lws(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len)
{
    struct ws *w = lws_get_vhost(wsi) ? lws_vhost_user(lws_get_vhost(wsi)) : NULL;
    struct session *s = user;
    switch ((int)reason) { /* others ask nothing of us */
    case LWS_CALLBACK_HTTP: return need_upgrade(w, wsi);
    case LWS_CALLBACK_HTTP_CONFIRM_UPGRADE: return on_upgrade(w, wsi, in);
    case LWS_CALLBACK_ESTABLISHED: return on_open(w, wsi, s);
    case LWS_CALLBACK_RECEIVE: loop_works(w->loop); return on_receive(s, in, len);
    case LWS_CALLBACK_SERVER_WRITEABLE: loop_works(w->loop); return on_writable(s);
    case LWS_CALLBACK_CLOSED: on_closed(s); return 0;
    case LWS_CALLBACK_WSI_DESTROY:
        if (w)
            handshake_over(w, wsi);
        return 0;
    case LWS_CALLBACK_PROTOCOL_INIT: w->served = true; return 0;
    case LWS_CALLBACK_PROTOCOL_DESTROY: free(w); return 0; /* the last of the vhost */
    }
    return 0;
}

static const struct lws_protocols protocols[] = {
    { .name = "ws", .callback = on_lws, .per_session_data_size = sizeof(struct session), .rx_buffer_size = RX_BYTES }, { .name = NULL },
};

/* ---- for main ---- */

void ws_adopt(struct ws *w, int fd)
{
    int size = SEND_BUFFER;
    size_t i = handshake_of(w, NULL);
    if (i == WS_HANDSHAKES_MAX) {
        close(fd);
        return;
    }
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    struct lws *wsi = lws_adopt_socket_vhost(w->vhost, fd); /* NULL: it has closed the socket */
    if (!wsi)
        return;
    w->handshakes[i].wsi = wsi;
    w->handshakes[i].who = (struct auth_who){ KP_PUBLIC, 0 };
    lws_set_timeout(wsi, PENDING_TIMEOUT_ESTABLISH_WITH_SERVER, WS_HANDSHAKE_S);
}

size_t ws_sessions(const struct ws *w)
{
    return w->count;
}

struct ws *ws_new(struct loop *l, struct app *a, struct guard *g)
{
    static const lws_retry_bo_t keep_alive = { .secs_since_valid_ping = PING_S, .secs_since_valid_hangup = HANG_UP_S };
    struct ws *w = calloc(1, sizeof *w);
    struct lws_context_creation_info info = { /* the one vhost of this port, or a Host header would hand the request to another */
        .port = CONTEXT_PORT_NO_LISTEN_SERVER, .protocols = protocols, .vhost_name = "ws", .user = w, .retry_and_idle_policy = &keep_alive,
        .options = LWS_SERVER_OPTION_VALIDATE_UTF8, .keepalive_timeout = WS_HANDSHAKE_S, .timeout_secs = WS_HANDSHAKE_S,
    };
    if (!w)
        return NULL;
    w->loop = l, w->app = a, w->guard = g;
    w->sweep = loop_timer_new(l, on_sweep, w);
    w->vhost = w->sweep ? lws_create_vhost(loop_lws(l), &info) : NULL;
    if (w->vhost)
        return w; /* without a vhost nothing of it is left with libwebsockets */
    loop_timer_free(w->sweep);
    free(w);
    return NULL;
}

void ws_free(struct ws *w)
{
    static const unsigned char gone[] = { 0x88, 2, 1001 >> 8, 1001 & 255 }; /* a close frame: libwebsockets sends none when it is made to close at once */
    struct session *next;
    if (!w)
        return;
    w->closing = true;
    for (struct session *s = w->sessions; s; s = next) {
        next = s->next;
        if (!s->over && !lws_send_pipe_choked(s->wsi))
            send(lws_get_socket_fd(s->wsi), gone, sizeof gone, MSG_DONTWAIT | MSG_NOSIGNAL);
        end(s);
        lws_set_timeout(s->wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_SYNC);
    }
    for (size_t i = 0; i < WS_HANDSHAKES_MAX; i++)
        if (w->handshakes[i].wsi)
            lws_set_timeout(w->handshakes[i].wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_SYNC);
    loop_timer_free(w->sweep);
    w->sweep = NULL;
    if (!w->served) /* the loop never ran */
        free(w);
}
