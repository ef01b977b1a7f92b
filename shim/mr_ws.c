/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Moonraker's WebSocket for moonraker.c, where it runs on another machine: one message a frame out, fragments joined in, a ping every 10 s.
 * Invariant: `down` is told once for each connect that was begun. */
#include "log.h"
#include "loop.h"
#include "moonraker.h"
#include "mr_link.h"

#include <libwebsockets.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define PING_S 10          /* so long without a sign of life, then a ping; */
#define HANG_UP_S 20       /* and so long without its pong, then the link is over. Moonraker itself gives up after 25 s. */
#define CONNECT_S 5        /* for TCP, and for the handshake */
#define ADDRESSES_MAX 4    /* of a name; each failed connect goes on to the next */
#define ADDRESS_TRIES 20   /* failed connects after which the name is looked up again: a look-up can block, so not each time */
#define KEPT_BYTES 65536   /* a buffer that grew beyond is given back after its message */

struct mr_link {
    struct loop *loop;
    const struct mr_config *cfg;
    const struct mr_link_events *ev;
    void *user;
    struct lws_vhost *vhost;       /* freed with the loop */
    struct lws *wsi;               /* NULL: idle */
    bool up, failed, closing;      /* failed: a connect ended before it gave its wsi */
    char why[128];
    char addresses[ADDRESSES_MAX][64]; /* numeric */
    int address_count;             /* 0: to be looked up */
    char host_header[300];
    int failures;                  /* connects in a row; also which address is next */
    struct loop_timer *soon;       /* tells that a connect failed at once */
    unsigned char *in, *out;       /* out has LWS_PRE bytes before the message */
    size_t in_n, in_size, out_size;
};

static const lws_retry_bo_t keep_alive = { .secs_since_valid_ping = PING_S, .secs_since_valid_hangup = HANG_UP_S };

/* Makes room for n bytes. False: out of memory. */
static bool reserve(unsigned char **buffer, size_t *size, size_t n)
{
    size_t want = n * 2;
    unsigned char *grown;
    if (n <= *size) return true;
    grown = realloc(*buffer, want);
    if (!grown) return false;
    *buffer = grown;
    *size = want;
    return true;
}

static void give_back(unsigned char **buffer, size_t *size)
{
    if (*size <= KEPT_BYTES) return;
    free(*buffer);
    *buffer = NULL;
    *size = 0;
}

static void connect_failed(struct mr_link *k)
{
    if (++k->failures % ADDRESS_TRIES == 0) k->address_count = 0;
}

static void go_down(struct mr_link *k, const struct lws *wsi)
{
    if (k->closing || k->wsi != wsi) return;
    if (!k->up) connect_failed(k);
    k->wsi = NULL;
    k->up = false;
    k->in_n = 0;
    k->ev->down(k->user, k->why);
}

static void why(struct mr_link *k, const char *text)
{
    snprintf(k->why, sizeof k->why, "%s", text);
}

/* Non-zero closes the link, as libwebsockets wants it. */
static int on_receive(struct mr_link *k, struct lws *wsi, const void *data, size_t n)
{
    if (lws_is_first_fragment(wsi)) k->in_n = 0;
    if (k->in_n + n > MR_FRAME_MAX || !reserve(&k->in, &k->in_size, k->in_n + n + 1)) {
        why(k, "message too long");
        return -1;
    }
    memcpy(k->in + k->in_n, data, n);
    k->in_n += n;
    if (!lws_is_final_fragment(wsi) || lws_remaining_packet_payload(wsi)) return 0;
    k->in[k->in_n] = 0;
    k->ev->message(k->user, (char *)k->in, k->in_n);
    k->in_n = 0;
    give_back(&k->in, &k->in_size);
    return 0;
}

static int on_writable(struct mr_link *k, struct lws *wsi)
{
    size_t n;
    const char *text = k->ev->peek(k->user, &n);
    if (!text) return 0;
    if (!reserve(&k->out, &k->out_size, LWS_PRE + n)) {
        why(k, "out of memory");
        return -1;
    }
    memcpy(k->out + LWS_PRE, text, n);
    k->ev->wrote(k->user, n); /* before it is so: what fails half way may have arrived */
    if (lws_write(wsi, k->out + LWS_PRE, n, LWS_WRITE_TEXT) < (int)n) {
        why(k, "write failed");
        return -1;
    }
    give_back(&k->out, &k->out_size);
    if (k->ev->peek(k->user, &n)) lws_callback_on_writable(wsi);
    return 0;
}

static int add_key(const struct mr_link *k, struct lws *wsi, unsigned char **at, size_t room)
{
    const char *key = k->cfg->api_key;
    if (!key || !*key) return 0;
    return lws_add_http_header_by_name(wsi, (const unsigned char *)"X-Api-Key:", (const unsigned char *)key, (int)strlen(key), at, *at + room);
}

static int on_lws(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len)
{
    struct mr_link *k = user;

    switch ((int)reason) { /* others come with no link, or ask nothing of us */
    case LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER: return add_key(k, wsi, in, len);
    case LWS_CALLBACK_CLIENT_ESTABLISHED:
        k->up = true;
        why(k, "closed by the other side");
        k->ev->up(k->user);
        return 0;
    case LWS_CALLBACK_CLIENT_RECEIVE: loop_works(k->loop); return on_receive(k, wsi, in, len);
    case LWS_CALLBACK_CLIENT_WRITEABLE: loop_works(k->loop); return on_writable(k, wsi);
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
        why(k, in ? in : "connect failed");
        if (!k->wsi) k->failed = true; /* ws_connect is still inside libwebsockets; its timer tells it */
        go_down(k, wsi);
        return 0;
    case LWS_CALLBACK_CLIENT_CLOSED:
    case LWS_CALLBACK_WSI_DESTROY: /* all that libwebsockets 4.1.6 tells of a handshake that timed out */
        if (k) go_down(k, wsi);
        return 0;
    }
    return 0;
}

static const struct lws_protocols protocols[] = { { .name = "moonraker", .callback = on_lws, .rx_buffer_size = 65536 }, { .name = NULL } };

static void on_soon(void *user)
{
    struct mr_link *k = user;
    connect_failed(k);
    k->ev->down(k->user, k->why);
}

/* Fills k->addresses. False with k->why. */
static bool look_up(struct mr_link *k)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
    int rc = getaddrinfo(k->cfg->host, NULL, &hints, &list);

    for (const struct addrinfo *a = list; a && k->address_count < ADDRESSES_MAX; a = a->ai_next)
        if (!getnameinfo(a->ai_addr, a->ai_addrlen, k->addresses[k->address_count], sizeof k->addresses[0], NULL, 0, NI_NUMERICHOST)) k->address_count++;
    if (list) freeaddrinfo(list);
    if (!k->address_count) why(k, rc ? gai_strerror(rc) : "no address");
    return k->address_count > 0;
}

static void ws_connect(struct mr_link *k)
{
    struct lws_client_connect_info info = {
        .context = loop_lws(k->loop), .vhost = k->vhost, .port = k->cfg->port, .path = "/websocket", .host = k->host_header,
        .local_protocol_name = protocols[0].name, .userdata = k, .ietf_version_or_minus_one = -1, .retry_and_idle_policy = &keep_alive,
    };
    why(k, "connect failed");
    k->failed = false;
    if (k->address_count || look_up(k)) {
        info.address = k->addresses[k->failures % k->address_count];
        k->wsi = lws_client_connect_via_info(&info);
        if (k->failed) k->wsi = NULL;
    }
    if (!k->wsi) loop_timer_set(k->soon, 0);
}

static void ws_wake(struct mr_link *k)
{
    if (k->up) lws_callback_on_writable(k->wsi);
}

/* Without a closing handshake, which a side that hangs would not answer. */
static void ws_drop(struct mr_link *k)
{
    why(k, "no answer in time");
    lws_set_timeout(k->wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_ASYNC);
}

static void ws_free(struct mr_link *k)
{
    if (!k) return;
    k->closing = true;
    if (k->wsi) lws_set_timeout(k->wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_SYNC);
    loop_timer_free(k->soon);
    free(k->in);
    free(k->out);
    free(k);
}

static struct mr_link *ws_new(struct loop *l, const struct mr_config *cfg, const struct mr_link_events *ev, void *user)
{
    struct lws_context_creation_info info = {
        .port = CONTEXT_PORT_NO_LISTEN, .protocols = protocols, .vhost_name = "moonraker", .timeout_secs = CONNECT_S, .connect_timeout_secs = CONNECT_S,
    };
    struct mr_link *k = calloc(1, sizeof *k);
    if (!k) return NULL;
    *k = (struct mr_link){ .loop = l, .cfg = cfg, .ev = ev, .user = user };
    snprintf(k->host_header, sizeof k->host_header, strchr(cfg->host, ':') ? "[%s]:%d" : "%s:%d", cfg->host, cfg->port);
    k->soon = loop_timer_new(l, on_soon, k);
    k->vhost = lws_create_vhost(loop_lws(l), &info);
    if (k->soon && k->vhost) return k;
    ws_free(k);
    return NULL;
}

const struct mr_link_kind mr_ws = { "websocket", false, ws_new, ws_connect, ws_wake, ws_drop, ws_free };
