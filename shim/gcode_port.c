/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The listener of the G-code port and the sockets of its clients; what their bytes mean is gcode_session.c's.
 * Invariant: a client without a socket is there only until its script in flight has ended. */
#include "gcode_port.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "app.h"
#include "gcode_session.h"
#include "log.h"
#include "loop.h"

#define BACKLOG 64
#define ACCEPTS_A_TURN 64
#define ACCEPT_PAUSE_MS 100 /* when descriptors or memory have run out */
#define READ_MAX 4096
#define LAST_READS 2048 /* 8 MB: more than a socket holds */
#define HOME_SCRIPT_MAX 1024

static const char busy[] = "!! another client is connected\n";

struct client {
    struct client *next;
    struct gcode_port *port;
    struct gcode_session *session;
    struct loop_timer *stuck;
    int fd;                     /* -1: gone */
    uint32_t watched;
    bool ended;                 /* it sends no more */
    bool broken;                /* nothing can be told to it any more */
    bool in_call;               /* inside the session: what it wakes is done afterwards */
};

struct gcode_port {
    struct loop *loop;
    struct app *app;
    struct app_watch watch;
    struct gcode_options options;
    struct gcode_up up;
    struct kp_mappings *mappings;
    char home_script[HOME_SCRIPT_MAX];
    int listener;
    struct loop_timer *pause;
    size_t clients_max;
    struct client *clients;
    bool ready;
    bool (*allow)(void *user, const struct sockaddr *peer); /* NULL: everybody may connect */
    void *allow_user;
};

/* ---- a client's socket ---- */

static void on_event(void *user, int fd, uint32_t events);

static void client_free(struct client *c)
{
    struct client **at = &c->port->clients;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    loop_timer_free(c->stuck);
    gcode_session_free(c->session);
    free(c);
}

/* A connection that breaks may have brought an M112 just before. */
static void read_last(struct client *c)
{
    char bytes[READ_MAX];
    ssize_t n;
    for (int i = 0; i < LAST_READS && (n = recv(c->fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0; i++)
        gcode_session_last(c->session, bytes, (size_t)n);
}

static void client_close(struct client *c)
{
    loop_unwatch(c->port->loop, c->fd);
    c->in_call = true;
    read_last(c);
    close(c->fd);
    c->fd = -1;
    loop_timer_cancel(c->stuck);
    log_line(LOG_DEBUG, "gcode", "client=closed");
    gcode_session_end(c->session);
    c->in_call = false;
    if (!gcode_session_busy(c->session))
        client_free(c);
}

static void write_out(struct client *c)
{
    size_t n;
    const char *out;
    while (!c->broken && (out = gcode_session_out(c->session, &n)) && n > 0) {
        ssize_t sent = send(c->fd, out, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN) {
            if (!(c->watched & EPOLLOUT))
                loop_timer_set(c->stuck, GCODE_STUCK_MS);
            return;
        }
        if (sent < 0) {
            c->broken = true;
            return;
        }
        if (c->watched & EPOLLOUT)
            loop_timer_set(c->stuck, GCODE_STUCK_MS);
        gcode_session_sent(c->session, (size_t)sent);
    }
    loop_timer_cancel(c->stuck);
}

/* Sends what is there to send, and watches for what can be done next. May free the client. */
static void serve(struct client *c)
{
    size_t n = 0;
    if (c->fd < 0) {
        if (!gcode_session_busy(c->session))
            client_free(c);
        return;
    }
    c->in_call = true;
    write_out(c);
    c->in_call = false;
    if (c->broken || (c->ended && !gcode_session_open(c->session))) {
        client_close(c);
        return;
    }
    gcode_session_out(c->session, &n);
    uint32_t events = (n > 0 ? (uint32_t)EPOLLOUT : 0u) | (!c->ended && gcode_session_room(c->session) > 0 ? (uint32_t)EPOLLIN : 0u);
    if (events == c->watched)
        return;
    c->watched = events;
    if (loop_watch(c->port->loop, c->fd, events, on_event, c))
        client_close(c);
}

static void on_event(void *user, int fd, uint32_t events)
{
    struct client *c = user;
    char bytes[READ_MAX];
    size_t room = gcode_session_room(c->session);
    c->in_call = true;
    c->broken = c->broken || (events & (EPOLLHUP | EPOLLERR));
    if (!c->broken && (events & EPOLLIN) && room > 0) {
        ssize_t n = recv(fd, bytes, room < sizeof bytes ? room : sizeof bytes, MSG_DONTWAIT);
        if (n > 0)
            gcode_session_take(c->session, bytes, (size_t)n);
        else if (n == 0)
            c->ended = true;
        else if (errno != EAGAIN && errno != EINTR)
            c->broken = true;
    }
    c->in_call = false;
    serve(c);
}

static void on_stuck(void *user)
{
    struct client *c = user;
    log_line(LOG_WARNING, "gcode", "client=closed why=\"it reads no replies\"");
    c->broken = true;
    serve(c);
}

static struct client *client_new(struct gcode_port *p, int fd)
{
    struct client *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->port = p, c->fd = fd, c->watched = EPOLLIN;
    c->next = p->clients;
    p->clients = c;
    c->stuck = loop_timer_new(p->loop, on_stuck, c);
    c->session = c->stuck ? gcode_session_new(app_machine(p->app), &p->options, &p->up, c) : NULL;
    if (c->session && !loop_watch(p->loop, fd, EPOLLIN, on_event, c))
        return c;
    client_free(c);
    return NULL;
}

/* ---- new clients ---- */

/* Has closed its side although nobody has read that yet. */
static bool has_ended(const struct client *c)
{
    char byte;
    return c->ended || recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* A client that comes back takes the place of one that sends no more. */
static bool make_room(struct gcode_port *p)
{
    struct client *ended = NULL;
    size_t count = 0;
    for (struct client *c = p->clients; c; c = c->next) {
        if (c->fd < 0)
            continue;
        count++;
        if (has_ended(c))
            ended = c;
    }
    if (count < p->clients_max)
        return true;
    if (ended)
        client_close(ended);
    return ended != NULL;
}

static void refuse(int fd)
{
    char drain[READ_MAX];
    if (send(fd, busy, sizeof busy - 1, MSG_NOSIGNAL | MSG_DONTWAIT) > 0) {
        shutdown(fd, SHUT_WR);
        while (recv(fd, drain, sizeof drain, MSG_DONTWAIT) > 0) /* unread bytes would take the line back */
            continue;
    }
    close(fd);
}

static void on_connect(void *user, int listener, uint32_t events)
{
    struct gcode_port *p = user;
    (void)events;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        struct sockaddr_storage peer;
        socklen_t len = sizeof peer;
        int one = 1, fd = accept4(listener, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && errno == EAGAIN)
            return;
        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
            loop_unwatch(p->loop, p->listener);
            loop_timer_set(p->pause, ACCEPT_PAUSE_MS);
            return;
        }
        if (fd < 0)
            continue;
        if (p->allow && !p->allow(p->allow_user, (const struct sockaddr *)&peer)) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
        if (make_room(p) && client_new(p, fd))
            log_line(LOG_DEBUG, "gcode", "client=connected");
        else
            refuse(fd);
    }
}

static void on_pause_over(void *user)
{
    struct gcode_port *p = user;
    if (loop_watch(p->loop, p->listener, EPOLLIN, on_connect, p))
        loop_timer_set(p->pause, ACCEPT_PAUSE_MS);
}

/* ---- between the sessions and app ---- */

static struct lane_job *up_submit(void *to, const struct lane_script *s, lane_done *done, void *user, struct kp_faults *f)
{
    struct gcode_port *p = to;
    return lane_submit_script(app_lane(p->app), s, done, user, f);
}

static bool up_take_back(void *to, struct lane_job *job)
{
    struct gcode_port *p = to;
    return lane_take_back(app_lane(p->app), job);
}

static uint64_t up_movers(void *to)
{
    struct gcode_port *p = to;
    return lane_movers(app_lane(p->app));
}

static void on_stopped(void *user, const struct app_answer *answer)
{
    (void)user, (void)answer; /* app tells the log; the client's lines get their errors from the lane */
}

static void up_stop(void *to)
{
    struct gcode_port *p = to;
    struct kp_arg reason = { kp_str_of("reason"), { .kind = KP_STR, .str = kp_str_of("M112 on the G-code port") }, false };
    struct kp_call call;
    struct kp_faults f = { .count = 0 };
    if (app_check(p->app, kp_command_by_name(kp_str_of("emergency_stop")), &reason, 1, &call, &f) == KP_OK)
        app_execute(p->app, &call, on_stopped, NULL);
}

static size_t up_unread(void *to, void *client)
{
    const struct client *c = client;
    int n = 0;
    (void)to;
    return c->fd >= 0 && !ioctl(c->fd, FIONREAD, &n) && n > 0 ? (size_t)n : 0;
}

static int64_t up_now_ms(void *to)
{
    (void)to;
    return loop_now_ms();
}

static void up_look(void *to, int64_t in_ms)
{
    struct gcode_port *p = to;
    app_look(p->app, in_ms);
}

static void up_wake(void *to, void *client)
{
    struct client *c = client;
    (void)to;
    if (!c->in_call)
        serve(c);
}

static void each_client(struct gcode_port *p, void (*tell)(struct gcode_session *s))
{
    struct client *next;
    for (struct client *c = p->clients; c; c = next) {
        next = c->next;
        c->in_call = true;
        tell(c->session);
        c->in_call = false;
        serve(c);
    }
}

static void on_pushed(void *user)
{
    each_client(user, gcode_session_pushed);
}

static void on_changed(void *user)
{
    struct gcode_port *p = user;
    char bent[KP_TEXT_MAX];
    bool ready = kp_machine_klippy_state(app_machine(p->app)) == KP_KLIPPY_READY;
    if (ready && !p->ready && app_bent(p->app, bent))
        log_line(LOG_WARNING, "gcode", "%s", bent);
    p->ready = ready;
    each_client(p, gcode_session_changed);
}

/* ---- start and stop ---- */

/* The lines of home_script, each without the blanks around it. False: too long. */
static bool read_home_script(struct gcode_port *p, const char *text)
{
    size_t n = 0;
    while (text && *text) {
        size_t size = strcspn(text, "\n"), from = strspn(text, " \t\r"), to = size;
        while (to > from && strchr(" \t\r", text[to - 1]))
            to--;
        if (to > from)
            n += (size_t)snprintf(p->home_script + n, sizeof p->home_script - n, "%s%.*s", n ? "\n" : "", (int)(to - from), text + from);
        if (n >= sizeof p->home_script)
            return false;
        text += size + (text[size] != 0);
    }
    p->options.home_script = n ? p->home_script : NULL;
    return true;
}

static bool read_options(struct gcode_port *p, const struct kp_config *c, char *err, unsigned err_size)
{
    struct kp_faults f = { .count = 0 };
    const char *error_reply = kp_config_str(c, "gcode_port", "error_reply");
    p->mappings = kp_mappings_new();
    if (!p->mappings)
        return false;
    if (kp_mappings_config(p->mappings, c, &f) != KP_OK) {
        snprintf(err, err_size, "[gcode_driver] command_mappings: %s", f.item[0].message);
        return false;
    }
    p->options.firmware_name = kp_config_str(c, "gcode_port", "firmware_name");
    p->options.mappings = p->mappings;
    p->options.ack = error_reply && !strcmp(error_reply, "ack");
    p->options.klipper_commands = kp_config_bool(c, "gcode_port", "allow_klipper_commands");
    p->clients_max = (size_t)kp_config_num(c, "gcode_port", "clients");
    if (read_home_script(p, kp_config_str(c, "gcode_port", "home_script")))
        return true;
    snprintf(err, err_size, "[gcode_port] home_script: at most %d characters", HOME_SCRIPT_MAX - 1);
    return false;
}

static bool listen_on(struct gcode_port *p, const char *host, int port, char *err, unsigned err_size)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV }, *list = NULL;
    char service[16];
    int one = 1;
    snprintf(service, sizeof service, "%d", port);
    int rc = getaddrinfo(host, service, &hints, &list);
    if (rc) {
        snprintf(err, err_size, "[gcode_port] %s: %s", host, gai_strerror(rc));
        return false;
    }
    p->listener = socket(list->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool good = p->listener >= 0 && !setsockopt(p->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) &&
                !bind(p->listener, list->ai_addr, list->ai_addrlen) && !listen(p->listener, BACKLOG) &&
                !loop_watch(p->loop, p->listener, EPOLLIN, on_connect, p);
    if (!good)
        snprintf(err, err_size, "[gcode_port] %s port %d: %s", host, port, strerror(errno));
    freeaddrinfo(list);
    return good;
}

struct gcode_port *gcode_port_open(struct loop *l, struct app *a, const struct kp_config *c, char *err, unsigned err_size)
{
    struct gcode_port *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->loop = l, p->app = a, p->listener = -1;
    p->up = (struct gcode_up){ up_submit, up_take_back, up_movers, up_stop, up_unread, up_now_ms, up_look, up_wake, p };
    p->pause = loop_timer_new(l, on_pause_over, p);
    const char *host = kp_config_str(c, "gcode_port", "host");
    int port = (int)kp_config_num(c, "gcode_port", "port");
    if (!p->pause || !read_options(p, c, err, err_size) || !listen_on(p, host, port, err, err_size)) {
        gcode_port_close(p);
        return NULL;
    }
    p->watch = (struct app_watch){ .pushed = on_pushed, .changed = on_changed, .user = p };
    app_watch(a, &p->watch);
    log_line(LOG_INFO, "gcode", "listening host=%s port=%d", host, port);
    return p;
}

void gcode_port_allow(struct gcode_port *p, bool (*allow)(void *user, const struct sockaddr *peer), void *user)
{
    p->allow = allow;
    p->allow_user = user;
}

void gcode_port_close(struct gcode_port *p)
{
    if (!p)
        return;
    app_unwatch(p->app, &p->watch);
    if (p->listener >= 0) {
        loop_unwatch(p->loop, p->listener);
        close(p->listener);
    }
    while (p->clients) {
        if (p->clients->fd >= 0) {
            loop_unwatch(p->loop, p->clients->fd);
            close(p->clients->fd);
        }
        client_free(p->clients);
    }
    loop_timer_free(p->pause);
    kp_mappings_free(p->mappings);
    free(p);
}
