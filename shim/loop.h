/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The one loop of klipperplaced: libwebsockets owns it; descriptors and timers of everybody else hang on it. */
#ifndef LOOP_H
#define LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct loop;
struct loop_timer;
struct lws_context;

typedef void loop_fd_fn(void *user, int fd, uint32_t epoll_events);
typedef void loop_timer_fn(void *user);

/* Gives a loop that ends loop_run at SIGINT or SIGTERM. NULL with errno on failure. */
struct loop *loop_new(void);
void loop_free(struct loop *l);
/* Serves until loop_stop or a signal. Returns 0. */
int loop_run(struct loop *l);
void loop_stop(struct loop *l);
/* Milliseconds of CLOCK_MONOTONIC, read at the call. */
int64_t loop_now_ms(void);
/* Calls fn when fd has epoll_events (EPOLLIN, ...). One watcher a descriptor. 0, or -1 with errno. Watching it again changes the events. */
int loop_watch(struct loop *l, int fd, uint32_t epoll_events, loop_fd_fn *fn, void *user);
/* The same, for work that others need not wait for: in a turn all other watchers come first, and of these only the one that has waited for longest. */
int loop_watch_last(struct loop *l, int fd, uint32_t epoll_events, loop_fd_fn *fn, void *user);
/* Must come before close(fd). Safe inside a callback, also for a descriptor with an event still to be told: that event is dropped. */
void loop_unwatch(struct loop *l, int fd);
/* Gives a timer that is not set. NULL when out of memory. */
struct loop_timer *loop_timer_new(struct loop *l, loop_timer_fn *fn, void *user);
/* Fires once, `ms` from now (0: at the next turn); setting it again moves it. */
void loop_timer_set(struct loop_timer *t, int64_t ms);
void loop_timer_cancel(struct loop_timer *t);
void loop_timer_free(struct loop_timer *t);
/* Calls told with the time of each turn: all work between two waits, in microseconds. One; NULL: nobody. */
typedef void loop_turn_fn(void *user, int64_t us);
void loop_on_turn(struct loop *l, loop_turn_fn *told, void *user);
/* For callbacks of libwebsockets that come after its wait (bytes have come, or may be written), not for others: the work begins now, if it has not. */
void loop_works(struct loop *l);
/* For the rooms that speak WebSocket: moonraker.c and ws.c. */
struct lws_context *loop_lws(struct loop *l);

#endif
