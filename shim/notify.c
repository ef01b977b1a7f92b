/* SPDX-License-Identifier: GPL-3.0-or-later */
/* systemd's notifications, for main. By itself and not by libsystemd: the whole protocol is one datagram of text to a unix socket, and the library would be one
 * more thing to install, load and keep up to date on every Pi.
 * Invariant: the watchdog is fed by a timer of the loop and by nothing else, so a loop that hangs feeds it no more. */
#include "notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <kp.h>

#include "app.h"
#include "log.h"
#include "loop.h"

#define TEXT_MAX 256

struct notify {
    struct app *app;
    struct app_watch watch;
    struct loop_timer *feed;
    int fd;                   /* -1: nobody wants to know */
    struct sockaddr_un to;
    socklen_t to_n;
    int64_t feed_ms;          /* 0: no watchdog */
    bool ready, failing;      /* failing: the last one could not be sent, and that was logged */
    char status[TEXT_MAX];    /* as last told */
};

static void tell(struct notify *n, const char *text)
{
    ssize_t sent = n->fd < 0 ? 0 : sendto(n->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&n->to, n->to_n);
    if (sent < 0 && !n->failing)
        log_line(LOG_WARNING, "notify", "systemd cannot be told: %s", strerror(errno));
    n->failing = sent < 0;
}

static void tell_status(struct notify *n)
{
    const struct kp_machine *m = app_machine(n->app);
    char text[TEXT_MAX];
    snprintf(text, sizeof text, "STATUS=Moonraker %s, Klipper %s%s", kp_machine_moonraker_connected(m) ? "connected" : "away",
             kp_klippy_name(kp_machine_klippy_state(m)), kp_safety_latched(m) ? ", emergency stop" : "");
    if (!n->ready || !strcmp(text, n->status))
        return;
    memcpy(n->status, text, sizeof text);
    tell(n, text);
}

static void on_changed(void *user)
{
    tell_status(user);
}

static void on_feed(void *user)
{
    struct notify *n = user;
    tell(n, "WATCHDOG=1");
    loop_timer_set(n->feed, n->feed_ms);
}

/* A path, or @ and a name of the abstract namespace. */
static void use_socket(struct notify *n, const char *name)
{
    size_t size = strlen(name);
    if ((name[0] != '/' && name[0] != '@') || size < 2 || size >= sizeof n->to.sun_path) {
        log_line(LOG_WARNING, "notify", "NOTIFY_SOCKET is no socket: %s", name);
        return;
    }
    n->to.sun_family = AF_UNIX;
    memcpy(n->to.sun_path, name, size);
    if (name[0] == '@')
        n->to.sun_path[0] = 0;
    n->to_n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size + (name[0] == '/')); /* an abstract name has no 0 at its end */
    n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

/* Half of what systemd waits; 0: there is no watchdog, or it is another process's. */
static int64_t feed_ms(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    long long us = usec ? atoll(usec) : 0;
    if (us <= 0 || (pid && *pid && atoll(pid) != (long long)getpid()))
        return 0;
    return us / 2000 > 0 ? us / 2000 : 1;
}

struct notify *notify_new(struct loop *l, struct app *a)
{
    const char *name = getenv("NOTIFY_SOCKET");
    struct notify *n = calloc(1, sizeof *n);
    if (!n)
        return NULL;
    n->app = a, n->fd = -1;
    if (!(n->feed = loop_timer_new(l, on_feed, n))) {
        free(n);
        return NULL;
    }
    if (name && *name)
        use_socket(n, name);
    n->feed_ms = n->fd < 0 ? 0 : feed_ms();
    n->watch = (struct app_watch){ .changed = on_changed, .user = n };
    app_watch(a, &n->watch);
    return n;
}

void notify_ready(struct notify *n)
{
    n->ready = true;
    tell(n, "READY=1");
    tell_status(n);
    if (n->feed_ms)
        loop_timer_set(n->feed, 0);
}

void notify_stopping(struct notify *n)
{
    n->ready = false;
    tell(n, "STOPPING=1\nSTATUS=stopping");
}

void notify_free(struct notify *n)
{
    if (!n)
        return;
    app_unwatch(n->app, &n->watch);
    loop_timer_free(n->feed);
    if (n->fd >= 0)
        close(n->fd);
    free(n);
}
