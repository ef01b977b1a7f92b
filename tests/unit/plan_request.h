/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Requests as text ("move x=1 wait=true") for the tests of plans: parsed, checked and planned. Include it after cmocka's header. */
#ifndef PLAN_REQUEST_H
#define PLAN_REQUEST_H

#include "plan_fixture.h"

struct request {
    char text[512];
    const struct kp_command *command;
    struct kp_arg args[KP_ARGS_MAX];
    struct kp_str axes[8];
    size_t count;
};

static inline struct kp_value word_value(struct request *r, char *word)
{
    double v;
    struct kp_str s = kp_str_of(word);
    if (kp_number_parse(s, &v))
        return number_value(v);
    if (strcmp(word, "true") == 0 || strcmp(word, "false") == 0)
        return (struct kp_value){ .kind = KP_BOOL, .flag = word[0] == 't' };
    if (word[0] != '[')
        return text_value(word);
    size_t n = 0; /* [x,y]: names of one letter */
    for (char *at = word + 1; *at && *at != ']'; at++)
        if (*at != ',')
            r->axes[n++] = (struct kp_str){ at, 1 };
    return (struct kp_value){ .kind = KP_STRS, .strs = r->axes, .count = n };
}

/* "move x=1 wait=true": false when the command is unknown. A blank in a value is written as ~. */
static inline bool request_parse(struct request *r, const char *text)
{
    memset(r, 0, sizeof *r);
    snprintf(r->text, sizeof r->text, "%.*s", (int)sizeof r->text - 1, text);
    char *save = NULL, *word = strtok_r(r->text, " ", &save);
    r->command = kp_command_by_name(kp_str_of(word));
    while ((word = strtok_r(NULL, " ", &save))) {
        char *is = strchr(word, '=');
        if (!is)
            return false;
        *is = 0;
        for (char *c = is + 1; *c; c++)
            if (*c == '~')
                *c = ' ';
        r->args[r->count].name = kp_str_of(word);
        r->args[r->count++].value = word_value(r, is + 1);
    }
    return r->command != NULL;
}

/* Checks and plans; NULL with faults in *f. */
static inline struct kp_seq *plan_text(const struct kp_machine *m, const char *text, bool flush, struct kp_faults *f)
{
    struct request r;
    struct kp_call call;
    struct kp_seq *s = NULL;
    memset(f, 0, sizeof *f);
    if (!request_parse(&r, text))
        fail_msg("not a request: %s", text);
    enum kp_err rc = kp_check(m, r.command, r.args, r.count, &call, f);
    if (rc == KP_OK)
        rc = kp_seq_plan(&s, m, &call, flush, f);
    assert_int_equal(rc, kp_faults_code(f));
    assert_int_equal(rc == KP_OK, s != NULL);
    return s;
}

#endif
