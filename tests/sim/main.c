/* SPDX-License-Identifier: GPL-3.0-or-later */
/* kp-sim: starts the simulated machine and runs its one loop. Everything it made in the file system is gone when it ends. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "control.h"
#include "log.h"
#include "mcu.h"
#include "pins.h"
#include "wire.h"
#include "world.h"

enum { EXIT_OK, EXIT_START, EXIT_USAGE };
enum { WIRE_MAX = 65536 }; /* bytes on the way to a host that does not read */
enum { POLL_PTY, POLL_SIGNAL, POLL_STDIN, POLL_CONTROL, POLL_COUNT = POLL_CONTROL + 1 + CLIENTS_MAX };

struct options {
    const char *pty, *control, *world, *log;
    bool strict, log_steps, die_with_stdin;
    uint64_t clock_start;
    int64_t wire_delay_ns, wire_jitter_ns;
};

struct sim {
    struct options opt;
    struct log log;
    struct pins pins;
    struct world world;
    struct mcu mcu;
    struct control control;
    struct wire in, out;
    int pty, slave, signals; /* owned */
    bool linked, bound; /* link and socket are ours to remove */
    bool host_silent;
    int64_t woke_ns; /* when the turn under way began to read */
};

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int usage(const char *why)
{
    fprintf(stderr,
        "kp-sim: %s\nusage: kp-sim --pty LINK --control SOCKET --world FILE --log EVENTLOG\n"
        "              [--strict] [--log-steps] [--die-with-stdin] [--clock-start TICKS]\n"
        "              [--wire-delay US] [--wire-jitter US]\n",
        why);
    return EXIT_USAGE;
}

static bool microseconds(const char *text, int64_t *ns)
{
    char *end;
    long us = strtol(text, &end, 10);

    if (*end || end == text || us < 0 || us > 1000000) return false;
    *ns = (int64_t)us * 1000;
    return true;
}

static int parse_options(struct options *o, int argc, char **argv)
{
    static const struct option names[] = {{"pty", required_argument, NULL, 'p'}, {"control", required_argument, NULL, 'c'},
        {"world", required_argument, NULL, 'w'}, {"log", required_argument, NULL, 'l'}, {"strict", no_argument, NULL, 's'},
        {"log-steps", no_argument, NULL, 'S'}, {"die-with-stdin", no_argument, NULL, 'd'}, {"clock-start", required_argument, NULL, 'k'},
        {"wire-delay", required_argument, NULL, 'D'}, {"wire-jitter", required_argument, NULL, 'J'}, {0}};
    char *end;
    int c;

    while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (c) {
        case 'p': o->pty = optarg; break;
        case 'c': o->control = optarg; break;
        case 'w': o->world = optarg; break;
        case 'l': o->log = optarg; break;
        case 's': o->strict = true; break;
        case 'S': o->log_steps = true; break;
        case 'd': o->die_with_stdin = true; break;
        case 'k':
            o->clock_start = strtoull(optarg, &end, 10);
            if (*end || end == optarg) return usage("--clock-start needs a number");
            break;
        case 'D':
            if (!microseconds(optarg, &o->wire_delay_ns)) return usage("--wire-delay needs 0 to 1000000 us");
            break;
        case 'J':
            if (!microseconds(optarg, &o->wire_jitter_ns)) return usage("--wire-jitter needs 0 to 1000000 us");
            break;
        default: return usage("unknown option");
        }
    }
    if (optind != argc || !o->pty || !o->control || !o->world || !o->log) return usage("an option is missing");
    return EXIT_OK;
}

static void pin_changed(void *arg, int pin, struct when at)
{
    struct sim *s = arg;

    world_pin_changed(&s->world, pin, at);
    inputs_pin_changed(&s->mcu, pin);
    control_pin_changed(&s->control, pin, at);
}

/* ---- start and stop ---- */

/* Removes what an earlier run left behind, and nothing of another kind. */
static void remove_old(const char *path, mode_t kind)
{
    struct stat st;

    if (lstat(path, &st) == 0 && (st.st_mode & S_IFMT) == kind) unlink(path);
}

static bool pty_open(struct sim *s)
{
    char name[128];
    struct termios t;

    s->pty = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (s->pty < 0 || grantpt(s->pty) < 0 || unlockpt(s->pty) < 0 || ptsname_r(s->pty, name, sizeof name)) return false;
    s->slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (s->slave < 0 || tcgetattr(s->slave, &t) < 0) return false;
    cfmakeraw(&t);
    if (tcsetattr(s->slave, TCSANOW, &t) < 0) return false;
    remove_old(s->opt.pty, S_IFLNK);
    s->linked = symlink(name, s->opt.pty) == 0;
    return s->linked;
}

static bool signals_open(struct sim *s)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0) return false;
    s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return s->signals >= 0;
}

static bool sim_start(struct sim *s)
{
    char err[400] = "";
    int64_t now = now_ns();

    s->pty = s->slave = s->signals = s->control.fd = -1;
    if (log_open(&s->log, s->opt.log) < 0) {
        fprintf(stderr, "kp-sim: %s: %s\n", s->opt.log, strerror(errno));
        return false;
    }
    pins_init(&s->pins, &s->log);
    world_init(&s->world, &s->log, &s->pins);
    if (!world_load(&s->world, s->opt.world, err, sizeof err)) {
        fprintf(stderr, "kp-sim: %s\n", err);
        return false;
    }
    if (mcu_init(&s->mcu, &s->log, &s->pins, &s->world, s->opt.clock_start, now) < 0) {
        fprintf(stderr, "kp-sim: out of memory\n");
        return false;
    }
    s->mcu.strict = s->opt.strict;
    s->mcu.log_steps = s->opt.log_steps;
    wire_init(&s->in, s->opt.wire_delay_ns, s->opt.wire_jitter_ns, 1);
    wire_init(&s->out, s->opt.wire_delay_ns, s->opt.wire_jitter_ns, 2);
    remove_old(s->opt.control, S_IFSOCK);
    s->bound = control_open(&s->control, s->opt.control, &s->mcu, &s->world, &s->pins, &s->log) == 0;
    if (!s->bound || !signals_open(s) || !pty_open(s)) {
        fprintf(stderr, "kp-sim: %s: %s\n", !s->bound ? s->opt.control : s->opt.pty, strerror(errno));
        return false;
    }
    s->log.tap = control_event, s->log.tap_arg = &s->control;
    s->pins.changed = pin_changed, s->pins.changed_arg = s;
    log_event(&s->log, mcu_when_ns(&s->mcu, now), "start", "%s", "");
    world_start(&s->world, mcu_when_ns(&s->mcu, now));
    return true;
}

static void sim_stop(struct sim *s)
{
    int fds[] = {s->pty, s->slave, s->signals};

    if (s->log.file && s->mcu.boots) log_event(&s->log, mcu_when_ns(&s->mcu, now_ns()), "stop", "%s", "");
    s->log.tap = NULL;
    s->pins.changed = NULL;
    if (s->bound) {
        control_flush(&s->control);
        control_close(&s->control);
        unlink(s->opt.control);
    }
    if (s->linked) unlink(s->opt.pty);
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
        if (fds[i] >= 0) close(fds[i]);
    wire_fini(&s->in);
    wire_fini(&s->out);
    mcu_fini(&s->mcu);
    world_fini(&s->world);
    log_close(&s->log);
}

/* ---- the loop ---- */

static bool wired(const struct sim *s)
{
    return s->opt.wire_delay_ns || s->opt.wire_jitter_ns;
}

/* came_ns: when what is read now came, at the earliest. now is a moment before the read. */
static void pty_read(struct sim *s, int64_t came_ns, int64_t now)
{
    uint8_t bytes[4096];
    ssize_t n = read(s->pty, bytes, sizeof bytes);

    if (n <= 0) return;
    if (now - s->mcu.heard_ns > 3000000000) {
        tcflush(s->slave, TCIFLUSH); /* old responses that nobody read */
        s->mcu.proto.out.n = 0;
        wire_take(&s->out, s->out.bytes.n);
    }
    if (wired(s))
        wire_put(&s->in, bytes, (size_t)n, came_ns); /* lost when memory is out, as on a wire */
    else
        mcu_input(&s->mcu, bytes, (size_t)n, now);
}

/* What has come to the microcontroller's end of the wire. */
static void wire_read(struct sim *s, int64_t now)
{
    size_t n = s->mcu.hang_until_ns ? 0 : wire_ready(&s->in, now);

    if (!n) return;
    mcu_input(&s->mcu, (const uint8_t *)s->in.bytes.p, n, now);
    wire_take(&s->in, n);
}

static void pty_write(struct sim *s)
{
    struct buf *out = &s->mcu.proto.out;
    size_t ready = out->n;
    ssize_t n;

    if (s->mcu.hang_until_ns) return;
    if (wired(s)) {
        if (s->out.bytes.n < WIRE_MAX) wire_put(&s->out, (const uint8_t *)out->p, out->n, now_ns()); /* else nobody reads */
        out->n = 0;
        out = &s->out.bytes;
        ready = wire_ready(&s->out, now_ns());
    }
    if (!ready) return;
    n = write(s->pty, out->p, ready);
    if (n <= 0) return;
    if (wired(s))
        wire_take(&s->out, (size_t)n);
    else
        buf_drop_front(out, (size_t)n);
}

/* The shorter of two waits; -1 is for ever. */
static int64_t sooner(int64_t a, int64_t b)
{
    return b >= 0 && (a < 0 || b < a) ? b : a;
}

static bool stdin_ended(void)
{
    char bytes[256];
    ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes);

    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

static void fill_polls(const struct sim *s, struct pollfd *fds, int64_t now)
{
    bool writes = s->mcu.proto.out.n || wire_ready(&s->out, now);
    short pty = (short)(POLLIN | (writes ? POLLOUT : 0));

    fds[POLL_PTY] = (struct pollfd){.fd = s->mcu.hang_until_ns ? -1 : s->pty, .events = pty};
    fds[POLL_SIGNAL] = (struct pollfd){.fd = s->signals, .events = POLLIN};
    fds[POLL_STDIN] = (struct pollfd){.fd = s->opt.die_with_stdin ? STDIN_FILENO : -1, .events = POLLIN};
    control_polls(&s->control, fds + POLL_CONTROL);
}

/* One turn; false to end. Input is read before what is due runs: see `ahead` in mcu.h. Where this process was kept from running past its
 * time, input counts as come at that time, and nothing runs past the moment before the read: our own lateness must not be the host's. */
static bool turn(struct sim *s)
{
    struct pollfd fds[POLL_COUNT];
    int64_t began = now_ns(), other = control_timeouts(&s->control, began), wait = mcu_wait(&s->mcu, began), meant;
    struct timespec ts;

    pty_write(s);
    log_flush(&s->log);
    control_flush(&s->control);
    wait = sooner(wait, other);
    if (!s->mcu.hang_until_ns) wait = sooner(wait, wire_wait(&s->in, began));
    if (!wire_ready(&s->out, began)) wait = sooner(wait, wire_wait(&s->out, began)); /* else the pty had no room and wakes us */
    fill_polls(s, fds, began);
    ts = (struct timespec){.tv_sec = wait / 1000000000, .tv_nsec = wait % 1000000000};
    mcu_note_load(&s->mcu, now_ns() - began);
    if (ppoll(fds, POLL_COUNT, wait < 0 ? NULL : &ts, NULL) < 0 && errno != EINTR) return false;
    if (fds[POLL_SIGNAL].revents || (fds[POLL_STDIN].revents && stdin_ended())) return false;
    began = now_ns();
    meant = wait < 0 || s->woke_ns + wait > began ? began : s->woke_ns + wait;
    s->woke_ns = began;
    if (fds[POLL_PTY].revents & POLLIN) pty_read(s, meant, began);
    wire_read(s, began);
    mcu_run(&s->mcu, began);
    control_serve(&s->control, fds + POLL_CONTROL, CLIENTS_MAX + 1, began);
    return !s->control.quit;
}

int main(int argc, char **argv)
{
    struct options opt = {0};
    struct sim *s;
    int rc = parse_options(&opt, argc, argv);

    if (rc) return rc;
    s = calloc(1, sizeof *s);
    if (!s) return EXIT_START;
    s->opt = opt;
    rc = EXIT_START;
    if (sim_start(s)) {
        s->woke_ns = now_ns();
        printf("ready\n");
        fflush(stdout);
        while (turn(s))
            ;
        rc = EXIT_OK;
    }
    sim_stop(s);
    free(s);
    return rc;
}
