/* SPDX-License-Identifier: GPL-3.0-or-later */
/* HTTP by libmicrohttpd: reads whole requests, hands them to one callback, sends one reply each. MHD's types stay in http.c. */
#ifndef HTTP_H
#define HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

struct http;
struct http_request;
struct loop;

#define HTTP_URGENT_MAX 64

struct http_limits {
    size_t body_max;         /* bytes; a larger body is read away and told by http_body_too_large */
    unsigned connections;    /* at once; with one more, the one without a whole request for longest is closed */
    const char *urgent;      /* how a request begins that goes before those of others, "POST /path", below HTTP_URGENT_MAX characters; borrowed */
    unsigned idle_timeout_s; /* of a connection that brings no whole request, or does not take its reply */
};

struct http_header { const char *name, *value; };

/* A whole request has come. The callee answers with http_reply now or later; until then the connection is suspended. */
typedef void http_on_request(void *user, struct http_request *r);
/* The client went away before the reply, or closed its sending side while it waited. r is gone when this returns: http_reply must not be called any more. */
typedef void http_on_gone(void *user, struct http_request *r);

struct http *http_new(struct loop *l, const struct http_limits *limits, http_on_request *on_request, http_on_gone *on_gone, void *user);
/* Closes every connection; requests that wait get on_gone. */
void http_free(struct http *h);
/* Takes an accepted, non-blocking socket from which nothing has been read. */
void http_adopt(struct http *h, int fd, const struct sockaddr *peer, socklen_t len);

/* Of a request; borrowed until its reply. The path has no query; only escapes of unreserved characters are decoded in it (%2F and %00 stay as they
 * are and match no route), in arguments all but %00. */
const char *http_method(const struct http_request *r);
const char *http_path(const struct http_request *r);
/* Who sent it; never NULL. */
const struct sockaddr *http_peer(const struct http_request *r);
const char *http_header(const struct http_request *r, const char *name); /* NULL: not sent */
const char *http_body(const struct http_request *r, size_t *n);          /* never NULL */
bool http_body_too_large(const struct http_request *r);
typedef bool http_query_fn(void *user, const char *name, const char *value); /* value NULL: none; false stops */
void http_query(const struct http_request *r, http_query_fn *fn, void *user);
/* One pointer of the callee's, NULL at first. */
void **http_slot(struct http_request *r);

/* Answers and ends the request. Takes body (from malloc; NULL: empty). headers (may be NULL) are copied, ended by a NULL name. */
void http_reply(struct http_request *r, int status, const char *content_type, char *body, size_t n, const struct http_header *headers);
/* Requests that wait for http_reply now. */
unsigned http_waiting(const struct http *h);
/* Connections open now. */
unsigned http_connections(const struct http *h);

#endif
