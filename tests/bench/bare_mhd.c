/* SPDX-License-Identifier: GPL-3.0-or-later */
/* kp-bare-mhd PORT FILE: libmicrohttpd (MHD) alone, which gives the HTTP answer in FILE to every request, for scripts/bench.
 * FILE holds a whole answer as the shim sent it. Invariant: every answer has the bytes of that one, apart from the date. Ends when stdin ends. */
#include <arpa/inet.h>
#include <microhttpd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* The shim's own flags and limits (shim/http.c, shim/rest.c), with MHD's loop and listener in place of ours. */
#define FLAGS (MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG)
#define CONNECTIONS_MAX 512u
#define IDLE_TIMEOUT_S 120u
#define MEMORY_BYTES 16384u /* of one connection */
#define ANSWER_MAX (1u << 20) /* bytes of FILE */

struct answer { unsigned status; struct MHD_Response *response; };

/* The first call of a request comes after its headers; an answer there would cost the connection its keep-alive, so the shim waits too. */
static enum MHD_Result on_access(void *user, struct MHD_Connection *c, const char *url, const char *method, const char *version, const char *data, size_t *n,
                                 void **slot)
{
    struct answer *a = user;
    (void)url, (void)method, (void)version, (void)data;
    if (!*slot) {
        *slot = a;
        return MHD_YES;
    }
    if (*n) {
        *n = 0;
        return MHD_YES;
    }
    return MHD_queue_response(c, a->status, a->response);
}

/* Gives the file's bytes with a 0 behind them; NULL when it cannot be read or is too long. */
static char *read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *text = f ? malloc(ANSWER_MAX + 1) : NULL;
    bool good = false;
    if (text) {
        *n = fread(text, 1, ANSWER_MAX, f);
        good = *n && *n < ANSWER_MAX && !ferror(f);
        text[*n] = 0;
    }
    if (f)
        fclose(f);
    if (good)
        return text;
    free(text);
    return NULL;
}

static bool written_by_mhd(const char *name)
{
    return !strcasecmp(name, "Date") || !strcasecmp(name, "Content-Length") || !strcasecmp(name, "Connection");
}

/* One header line, ended by 0. False when it is none. */
static bool add_header(struct MHD_Response *r, char *line)
{
    char *value = strchr(line, ':');
    if (!value)
        return false;
    *value++ = 0;
    value += strspn(value, " ");
    return written_by_mhd(line) || MHD_add_response_header(r, line, value) == MHD_YES;
}

/* Takes the text apart; the response borrows its body. */
static bool answer_parse(struct answer *a, char *text, size_t n)
{
    char *body = strstr(text, "\r\n\r\n"), *line = strstr(text, "\r\n");
    if (!body || sscanf(text, "HTTP/1.1 %u", &a->status) != 1)
        return false;
    body += 4;
    if (!(a->response = MHD_create_response_from_buffer(n - (size_t)(body - text), body, MHD_RESPMEM_PERSISTENT)))
        return false;
    for (line += 2; line < body - 2;) {
        char *end = strstr(line, "\r\n");
        *end = 0;
        if (!add_header(a->response, line))
            return false;
        line = end + 2;
    }
    return true;
}

static int serve(int port, struct answer *a)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    char byte;
    struct MHD_Daemon *d = MHD_start_daemon(FLAGS, (uint16_t)port, NULL, NULL, on_access, a, MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&at,
                                            MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_TIMEOUT_S,
                                            MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY_BYTES, MHD_OPTION_END);
    if (!d) {
        fprintf(stderr, "kp-bare-mhd: port %d cannot be served\n", port);
        return 1;
    }
    puts("ready");
    fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0) {
    }
    MHD_stop_daemon(d);
    return 0;
}

int main(int argc, char **argv)
{
    struct answer a = { .status = 0 };
    size_t n = 0;
    int port = argc == 3 ? atoi(argv[1]) : 0, rc;
    if (port <= 0 || port > 65535) {
        fprintf(stderr, "usage: kp-bare-mhd PORT FILE\n");
        return 2;
    }
    char *text = read_file(argv[2], &n);
    if (!text || !answer_parse(&a, text, n)) {
        fprintf(stderr, "kp-bare-mhd: %s holds no HTTP answer\n", argv[2]);
        rc = 1;
    } else {
        rc = serve(port, &a);
    }
    if (a.response)
        MHD_destroy_response(a.response);
    free(text);
    return rc;
}
