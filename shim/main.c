/* SPDX-License-Identifier: GPL-3.0-or-later */
/* klipperplaced: reads its configuration, starts the rooms in order, serves, and stops them in reverse. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <kp.h>

#include "announce.h"
#include "api_docs.h"
#include "app.h"
#include "gate.h"
#include "gcode_port.h"
#include "guard.h"
#include "key_cli.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "notify.h"
#include "openpnp.h"
#include "rest.h"
#include "ws.h"

#define CONFIG_MAX (1u << 20) /* bytes of klipperplace.cfg */
#define CONFIG_DEFAULT "/etc/klipperplace.cfg"

struct options { const char *config; bool check, given; int key; /* 0: none, else the place of the word "key" among the arguments */ };

static int usage(int status)
{
    fprintf(status ? stderr : stdout,
            "usage: klipperplaced [--config FILE] [--check] [--sample-config] [--api-docs] [--version] [--help]\n"
            "       klipperplaced [--config FILE] key add|list|set|rotate|delete ...\n"
            "  --config FILE    klipperplace.cfg (default " CONFIG_DEFAULT "; without that file: every option at its default)\n"
            "  --check          read the configuration, say what is wrong with it, and end\n"
            "  --sample-config  print a klipperplace.cfg with every option at its default, and what it means\n"
            "  --api-docs       print docs/api.md\n"
            KEY_CLI_USAGE);
    return status;
}

/* Gives the file's text; NULL with errno when it cannot be read or is too long. */
static char *read_file(const char *path, size_t *n, struct stat *st)
{
    FILE *f = fopen(path, "r");
    char *text = f ? malloc(CONFIG_MAX) : NULL;
    *n = text ? fread(text, 1, CONFIG_MAX, f) : 0;
    bool bad = !text || ferror(f) || *n == CONFIG_MAX || fstat(fileno(f), st);
    if (text && *n == CONFIG_MAX)
        errno = EFBIG;
    if (f)
        fclose(f);
    if (bad) {
        free(text);
        return NULL;
    }
    return text;
}

static bool say_faults(const struct kp_faults *f)
{
    for (size_t i = 0; i < f->count; i++)
        fprintf(stderr, "klipperplaced: %s\n", f->item[i].message);
    return f->count == 0;
}

static bool read_config(struct kp_config *c, const struct options *o)
{
    struct kp_faults f = { .count = 0 };
    struct stat st;
    size_t n;
    char *text = read_file(o->config, &n, &st);
    if (!text) {
        if (!o->given && errno == ENOENT)
            return true;
        fprintf(stderr, "klipperplaced: %s: %s\n", o->config, strerror(errno));
        return false;
    }
    kp_config_parse(c, o->config, (struct kp_str){ text, n }, &f);
    free(text);
    const char *exposed = kp_config_secret_exposed(c, st.st_mode);
    if (exposed)
        fprintf(stderr, "klipperplaced: %s holds a key (%s) and others may read it: chmod 600 it\n", o->config, exposed);
    return say_faults(&f) && !exposed;
}

static bool read_environment(struct kp_config *c)
{
    size_t count;
    const struct kp_option *rows = kp_options(&count);
    struct kp_error e;
    for (size_t i = 0; i < count; i++) {
        const char *text = rows[i].env ? getenv(rows[i].env) : NULL;
        if (text && *text && kp_config_env(c, rows[i].env, text, &e) != KP_OK) {
            fprintf(stderr, "klipperplaced: %s: %s\n", rows[i].env, e.message);
            return false;
        }
    }
    return true;
}

static bool verify(const struct kp_config *c)
{
    struct kp_faults f = { .count = 0 };
    kp_config_verify(c, &f);
    return say_faults(&f);
}

/* Who gets the sockets of the one port. */
struct edges { struct rest *rest; struct ws *ws; };

static void to_rest(void *user, int fd, const struct sockaddr *peer, socklen_t len)
{
    struct edges *edges = user;
    rest_adopt(edges->rest, fd, peer, len);
}

static void to_ws(void *user, int fd, const struct sockaddr *peer, socklen_t len)
{
    struct edges *edges = user;
    (void)peer, (void)len;
    ws_adopt(edges->ws, fd);
}

static void fill_metrics(const void *user, struct metrics_now *now)
{
    const struct edges *edges = user;
    now->ws_sessions = (unsigned)ws_sessions(edges->ws);
}

static int serve(const struct kp_config *c)
{
    char err[256] = "out of memory";
    struct gate *gate = NULL;
    struct gcode_port *port = NULL;
    struct openpnp *openpnp = NULL;
    bool wants_port = kp_config_bool(c, "gcode_port", "enabled"), served = false;
    struct app *app = NULL;
    struct announce *announce = NULL;
    struct notify *notify = NULL;
    struct edges edges = { NULL, NULL };
    struct metrics *metrics = metrics_new();
    struct guard *guard = guard_new(c, err, sizeof err);
    struct loop *l = metrics && guard ? loop_new() : NULL;
    if (l && (app = app_new(l, c, metrics, guard_auth(guard))) && (announce = announce_new(l, app)) && (notify = notify_new(l, app)) &&
        (edges.rest = rest_new(l, app, guard, metrics)) && (edges.ws = ws_new(l, app, guard)) && (openpnp = openpnp_new(app, c))) {
        rest_openpnp(edges.rest, openpnp);
        gate = gate_open(l, kp_config_str(c, "api", "host"), (int)kp_config_num(c, "api", "port"), to_rest, to_ws, &edges, err, sizeof err);
    }
    if (gate)
        gate_allow(gate, guard_may_connect, guard);
    if (gate && wants_port)
        port = gcode_port_open(l, app, c, err, sizeof err);
    if (gate && (port || !wants_port)) {
        served = true;
        if (port)
            gcode_port_allow(port, guard_may_connect, guard);
        loop_on_turn(l, metrics_turn, metrics);
        metrics_room(metrics, fill_metrics, &edges);
        log_line(LOG_INFO, "main", "serving version=%s host=%s port=%d", kp_version(), kp_config_str(c, "api", "host"), (int)kp_config_num(c, "api", "port"));
        notify_ready(notify);
        loop_run(l);
        notify_stopping(notify);
        log_line(LOG_INFO, "main", "stopping");
    } else {
        log_line(LOG_CRITICAL, "main", "cannot start: %s", err);
    }
    gcode_port_close(port);
    gate_close(gate);
    ws_free(edges.ws);
    rest_free(edges.rest);
    openpnp_free(openpnp);
    notify_free(notify);
    announce_free(announce);
    app_free(app);
    loop_free(l);
    guard_free(guard);
    metrics_free(metrics);
    return served ? 0 : 1;
}

/* What libkp cannot tell of the configuration: it knows no addresses. */
static int check(const struct kp_config *c, const char *path)
{
    char err[256];
    struct guard *g = guard_new(c, err, sizeof err);
    if (g)
        printf("%s: ok\n", path);
    else
        fprintf(stderr, "klipperplaced: %s\n", err);
    guard_free(g);
    return g ? 0 : 1;
}

static void write_out(void *to, const char *text, size_t n)
{
    fwrite(text, 1, n, to);
}

/* No key that the configuration holds can get into the log, whatever is logged. */
static void hide_secrets(const struct kp_config *c)
{
    size_t count;
    const struct kp_option *rows = kp_options(&count);
    for (size_t i = 0; i < count; i++)
        if (rows[i].secret)
            log_secret(kp_config_str(c, rows[i].section, rows[i].name));
}

static int parse_arguments(int argc, char **argv, struct options *o)
{
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--check"))
            o->check = true;
        else if (!strcmp(argv[i], "--config") && i + 1 < argc)
            o->config = argv[++i], o->given = true;
        else if (!strcmp(argv[i], "key")) {
            o->key = i;
            return -1; /* the rest is its own */
        } else if (!strcmp(argv[i], "--sample-config"))
            return kp_config_sample(write_out, stdout), 0;
        else if (!strcmp(argv[i], "--version"))
            return printf("klipperplaced %s\n", kp_version()), 0;
        else if (!strcmp(argv[i], "--api-docs"))
            return api_docs(stdout) ? 0 : 1;
        else
            return usage(strcmp(argv[i], "--help") ? 2 : 0);
    }
    return -1;
}

int main(int argc, char **argv)
{
    struct options o = { .config = CONFIG_DEFAULT };
    enum log_level level = LOG_INFO;
    int status = parse_arguments(argc, argv, &o);
    if (status >= 0)
        return status;
    struct kp_config *c = kp_config_new();
    if (!c)
        return 1;
    status = 1;
    if (!read_config(c, &o) || !read_environment(c) || !verify(c))
        goto out;
    if (o.check) {
        status = check(c, o.config);
        goto out;
    }
    if (o.key) {
        status = key_cli(c, argc - o.key - 1, argv + o.key + 1);
        goto out;
    }
    log_level_parse(kp_config_str(c, "api", "log_level"), &level);
    log_setup(level, !strcmp(kp_config_str(c, "api", "log_format"), "json"));
    hide_secrets(c);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that may grow no further is an error of the write, not the end of the server */
    status = serve(c);
out:
    kp_config_free(c);
    return status;
}
