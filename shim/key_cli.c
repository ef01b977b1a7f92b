/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The command line for keys. It speaks to the running server, so that a change holds at once and the database has one writer.
 * Invariant: nothing but the key that was asked for goes to stdout where one is made. */
#include "key_cli.h"

#include <errno.h>
#include <jansson.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "auth_api.h"
#include "secret.h"

#define BASE "/api/v1/auth/keys"
#define ANSWER_MAX (1u << 20) /* bytes */
#define WAIT_S 10
#define ID_MAX 64

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "klipperplaced: %s: %s\n", what, why);
    return 1;
}

static int usage(void)
{
    fputs("usage: klipperplaced [--config FILE] key ...\n" KEY_CLI_USAGE, stderr);
    return 2;
}

/* ---- asking the server ---- */

/* The server's own key. False: told why. */
static bool read_cookie(const struct kp_config *c, char out[SECRET_TEXT])
{
    const char *database = kp_config_str(c, "history", "database");
    char path[4096];
    if (!database) {
        fail("[history] database", "is not set: there is no place to keep keys in");
        return false;
    }
    snprintf(path, sizeof path, "%s" AUTH_COOKIE, database);
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(out, 1, SECRET_TEXT - 1, f) : 0;
    if (!f)
        fail(path, errno == ENOENT ? "is not there: does the server of this configuration run?" : strerror(errno));
    else if (n < SECRET_TEXT - 1)
        fail(path, "holds no key");
    if (f)
        fclose(f);
    out[n] = 0;
    return n == SECRET_TEXT - 1;
}

/* A connected socket; -1: told why. */
static int connect_server(const struct kp_config *c)
{
    const char *host = kp_config_str(c, "api", "host");
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list = NULL;
    struct timeval wait = { .tv_sec = WAIT_S };
    char port[16];
    int fd = -1;
    if (!strcmp(host, "0.0.0.0") || !strcmp(host, "::"))
        host = "localhost"; /* it listens everywhere */
    snprintf(port, sizeof port, "%d", (int)kp_config_num(c, "api", "port"));
    int rc = getaddrinfo(host, port, &hints, &list);
    for (struct addrinfo *a = list; !rc && a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || (!setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait) && !connect(fd, a->ai_addr, a->ai_addrlen)))
            continue;
        close(fd);
        fd = -1;
    }
    if (fd < 0)
        fail(host, rc ? gai_strerror(rc) : strerror(errno));
    if (list)
        freeaddrinfo(list);
    return fd;
}

static bool send_all(int fd, const char *text, size_t n)
{
    while (n) {
        ssize_t sent = send(fd, text, n, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        text += sent, n -= (size_t)sent;
    }
    return true;
}

/* The whole answer as the server closes behind it; NULL when it does not. */
static char *read_answer(int fd)
{
    char *text = malloc(ANSWER_MAX);
    size_t n = 0;
    ssize_t got = 1;
    while (text && n < ANSWER_MAX - 1 && (got = recv(fd, text + n, ANSWER_MAX - 1 - n, 0)) > 0)
        n += (size_t)got;
    if (text)
        text[n] = 0;
    if (!text || got < 0) {
        free(text);
        return NULL;
    }
    return text;
}

/* Asks and gives the data of a success; NULL: told why. Takes body (NULL: none). */
static json_t *ask(const struct kp_config *c, const char *method, const char *path, json_t *body)
{
    char cookie[SECRET_TEXT], *request = NULL, *answer = NULL;
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    json_t *envelope = NULL, *data = NULL;
    int fd = read_cookie(c, cookie) ? connect_server(c) : -1;
    int n = fd < 0 ? -1 : asprintf(&request, "%s " BASE "%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-API-Key: %s\r\n%sContent-Length: %zu\r\n\r\n%s",
                                   method, path, cookie, text ? "Content-Type: application/json\r\n" : "", text ? strlen(text) : 0, text ? text : "");
    if (n > 0 && send_all(fd, request, (size_t)n) && (answer = read_answer(fd))) {
        const char *at = strstr(answer, "\r\n\r\n");
        envelope = at ? json_loads(at + 4, 0, NULL) : NULL;
    }
    data = json_incref(json_object_get(envelope, "data"));
    const char *why = json_string_value(json_object_get(envelope, "error_message"));
    if (fd >= 0 && !data)
        fail("the server", why ? why : "gave no answer that can be understood");
    if (fd >= 0)
        close(fd);
    json_decref(envelope);
    json_decref(body);
    free(request);
    free(answer);
    free(text);
    return data;
}

/* ---- words ---- */

/* "2027-01-31": when that day begins here. "never": 0. False: neither. */
static bool read_date(const char *text, double *out)
{
    struct tm t = { .tm_isdst = -1 };
    const char *end = strptime(text, "%Y-%m-%d", &t);
    *out = 0;
    if (!strcmp(text, "never"))
        return true;
    if (!end || *end)
        return false;
    *out = (double)mktime(&t);
    return true;
}

/* The options behind a command, into a body. False: told why. */
static bool read_options(int argc, char **argv, bool may_disable, json_t *body)
{
    double at;
    for (int i = 0; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (value && !strcmp(argv[i], "--role"))
            json_object_set_new(body, "role", json_string(value));
        else if (value && may_disable && !strcmp(argv[i], "--name"))
            json_object_set_new(body, "name", json_string(value));
        else if (value && may_disable && !strcmp(argv[i], "--enabled") && (!strcmp(value, "yes") || !strcmp(value, "no")))
            json_object_set_new(body, "enabled", json_boolean(!strcmp(value, "yes")));
        else if (value && !strcmp(argv[i], "--expires") && read_date(value, &at))
            json_object_set_new(body, "expires_at", json_real(at));
        else {
            fail(argv[i], value ? "is no option of this command, or not with this value" : "needs a value");
            return false;
        }
    }
    return true;
}

/* "/ID"; false: it can be none. */
static bool path_of(const char *id, const char *behind, char out[ID_MAX + 16])
{
    if (!*id || strlen(id) > ID_MAX || id[strspn(id, "0123456789abcdefABCDEF-")]) {
        fail(id, "is no key's id; see: klipperplaced key list");
        return false;
    }
    snprintf(out, ID_MAX + 16, "/%s%s", id, behind);
    return true;
}

/* ---- commands ---- */

/* Takes what was answered; the exit status. */
static int done(json_t *data)
{
    int status = data ? 0 : 1;
    json_decref(data);
    return status;
}

static int show_secret(json_t *data)
{
    if (data) {
        fprintf(stderr, "id %s, role %s. This key is shown once:\n", json_string_value(json_object_get(data, "id")),
                json_string_value(json_object_get(data, "role")));
        printf("%s\n", json_string_value(json_object_get(data, "key")));
    }
    return done(data);
}

static void print_day(const char *label, const json_t *when)
{
    char text[32] = "never";
    time_t at = (time_t)json_number_value(when);
    struct tm t;
    if (json_is_number(when) && localtime_r(&at, &t))
        strftime(text, sizeof text, "%Y-%m-%d", &t);
    printf("  %s %-10s", label, text);
}

static void print_key(const json_t *k)
{
    printf("%s  %-8s  %-3s", json_string_value(json_object_get(k, "id")), json_string_value(json_object_get(k, "role")),
           json_is_true(json_object_get(k, "enabled")) ? "on" : "off");
    print_day("expires", json_object_get(k, "expires_at"));
    print_day("used", json_object_get(k, "last_used_at"));
    printf("  %s\n", json_string_value(json_object_get(k, "name")));
}

static int list(const struct kp_config *c)
{
    json_t *data = ask(c, "GET", "", NULL), *k;
    size_t i;
    json_array_foreach(json_object_get(data, "keys"), i, k)
        print_key(k);
    return done(data);
}

static int add(const struct kp_config *c, int argc, char **argv)
{
    json_t *body = json_pack("{s:s}", "name", argv[0]);
    if (!body)
        return fail(argv[0], "is no name in UTF-8");
    if (!read_options(argc - 1, argv + 1, false, body)) {
        json_decref(body);
        return 2;
    }
    return show_secret(ask(c, "POST", "", body));
}

static int set(const struct kp_config *c, int argc, char **argv)
{
    char path[ID_MAX + 16];
    json_t *body = json_object();
    if (!path_of(argv[0], "", path) || !read_options(argc - 1, argv + 1, true, body)) {
        json_decref(body);
        return 2;
    }
    json_t *data = ask(c, "PUT", path, body);
    if (data)
        print_key(data);
    return done(data);
}

static int delete_key(const struct kp_config *c, const char *id)
{
    char path[ID_MAX + 16];
    if (!path_of(id, "", path))
        return 2;
    json_t *data = ask(c, "DELETE", path, NULL);
    return done(data);
}

static int rotate(const struct kp_config *c, const char *id)
{
    char path[ID_MAX + 16];
    return path_of(id, "/rotate", path) ? show_secret(ask(c, "POST", path, NULL)) : 2;
}

int key_cli(const struct kp_config *c, int argc, char **argv)
{
    const char *what = argc ? argv[0] : "";
    if (!strcmp(what, "list") && argc == 1)
        return list(c);
    if (!strcmp(what, "add") && argc > 1 && argv[1][0] != '-')
        return add(c, argc - 1, argv + 1);
    if (!strcmp(what, "set") && argc > 2)
        return set(c, argc - 1, argv + 1);
    if (!strcmp(what, "rotate") && argc == 2)
        return rotate(c, argv[1]);
    if (!strcmp(what, "delete") && argc == 2)
        return delete_key(c, argv[1]);
    return usage();
}
