/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Scripts of the G-code port in the lane: one job each, under the rules of every command. The place, the pins and the axes that a script leaves are told to
 * the machine as those of a plan are. Invariant: a script is sent at most once, and done comes once for each job that was not taken back. */
#include "lane_priv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loop.h"

#define FLUSH_ROOM 8           /* bytes for a line feed and kp_script_flush */
#define FOLLOWED_FLUSH_MS 1000 /* the same as LANE_FLUSH_MS while more of the stream waits: a push stops the machine for a moment */

struct lane_port {
    struct lane_script script;
    char text[KP_SCRIPT_MAX + FLUSH_ROOM]; /* as it is sent */
    char console[KP_TEXT_MAX];
};

/* A stream of short moves that trickles in would never start: each move puts off the start of those before. */
static bool needs_flush(const struct lane *n, const struct lane_port *p)
{
    struct kp_str w;
    int64_t most_ms = p->script.follows ? FOLLOWED_FLUSH_MS : LANE_FLUSH_MS;
    if (n->unflushed_ms == LANE_NEVER || loop_now_ms() - n->unflushed_ms < most_ms)
        return false;
    for (size_t i = 0; kp_script_word(p->script.text, i, &w); i++)
        if (kp_str_eq(w, "M400") || kp_str_eq(w, "G4"))
            return false;
    return true;
}

static void on_answer(void *user, const struct mr_reply *r)
{
    struct lane *n = user;
    struct lane_job *j = n->head;
    const struct lane_script *s = &j->port->script;
    struct kp_faults f = { .count = 0 };
    struct kp_error e;
    bool says = !isnan(s->target[0]) && !isnan(s->target[1]) && !isnan(s->target[2]);
    if (lane_script_answered(n, r, &e)) {
        lane_script_wrote(n, s->writes, s->write_count, s->axes, s->axis_count, says && lane_script_has(n, "G1") ? s->target : NULL);
    } else {
        snprintf(j->klipper, sizeof j->klipper, "%s", r->outcome == MR_ERROR && r->message ? r->message : "");
        kp_faults_add(&f, &e);
    }
    lane_job_end(n, &f);
}

void lane_port_send(struct lane *n)
{
    struct lane_port *p = n->head->port;
    struct kp_faults f = { .count = 0 };
    struct kp_error e;
    bool flush = needs_flush(n, p);
    snprintf(p->text, sizeof p->text, "%s%s%s", p->script.text, flush ? "\n" : "", flush ? kp_script_flush() : "");
    if (lane_script_send(n, p->text, SCRIPT, on_answer))
        return;
    kp_error_set(&e, KP_INTERNAL_ERROR, NULL, "out of memory");
    kp_faults_add(&f, &e);
    lane_job_end(n, &f);
}

/* Other clients' lines come here as well; the script's own are the last before its answer. */
void lane_port_console(struct lane *n, const char *line)
{
    struct lane_port *p = n->running && n->call && n->wait == SCRIPT ? n->head->port : NULL;
    if (p && strncmp(line, "//", 2) != 0 && strncmp(line, "!!", 2) != 0)
        snprintf(p->console, sizeof p->console, "%s", line);
}

const char *lane_port_answer(const struct lane_job *j)
{
    return j->port ? j->port->console : "";
}

struct lane_job *lane_submit_script(struct lane *n, const struct lane_script *s, lane_done *done, void *user, struct kp_faults *f)
{
    struct kp_call call;
    struct kp_error e;
    struct lane_port *p = calloc(1, sizeof *p);
    if (!p) {
        kp_error_set(&e, KP_INTERNAL_ERROR, NULL, "out of memory");
        kp_faults_add(f, &e);
        return NULL;
    }
    p->script = *s;
    kp_check(n->machine, kp_command_by_name(kp_str_of("wait")), NULL, 0, &call, f); /* what it asks of the machine: that it is ready */
    struct lane_job *j = kp_faults_code(f) == KP_OK ? lane_job_add(n, &call, done, user, f) : NULL;
    if (j)
        j->port = p;
    else
        free(p);
    n->movers += j && (s->axis_count > 0 || lane_script_may_move(s->text));
    return j;
}
