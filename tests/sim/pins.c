/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The pin table, for the MCU and the world. Every change of an output or an input is logged once and told once. */
#include "pins.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const role_text[] = {"free", "out", "pwm", "in", "adc", "step", "dir"};

void pins_init(struct pins *p, struct log *log)
{
    memset(p, 0, sizeof *p);
    p->log = log;
}

int pin_parse(const char *text)
{
    char *end;
    long n;

    if (text[0] != 'P' || text[1] < 'A' || text[1] >= 'A' + PIN_PORTS || text[2] < '0' || text[2] > '9') return PIN_NONE;
    n = strtol(text + 2, &end, 10);
    if (*end || n > 15) return PIN_NONE;
    return (text[1] - 'A') * 16 + (int)n;
}

int pin_find(const struct pins *p, const char *name)
{
    for (int i = 0; i < PIN_COUNT; i++)
        if (p->at[i].name[0] && !strcmp(p->at[i].name, name)) return i;
    return pin_parse(name);
}

const char *pin_text(int pin, char buf[8])
{
    snprintf(buf, 8, "P%c%d", 'A' + pin / 16 % PIN_PORTS, pin % 16);
    return buf;
}

const char *pin_role_text(enum pin_role role)
{
    return role_text[role];
}

void pin_set(struct pins *p, int pin, double value, struct when at)
{
    struct pin *q = &p->at[pin];
    char text[8];

    if (q->value == value) return;
    q->value = value;
    q->changed_ns = at.ns;
    q->changes++;
    pin_text(pin, text);
    if (q->role == PIN_OUT || q->role == PIN_PWM)
        log_event(p->log, at, "pin", ",\"pin\":\"%s\",\"name\":\"%s\",\"value\":%.6g,\"role\":\"%s\"", text, q->name, value, role_text[q->role]);
    else if (q->role != PIN_DIR && q->role != PIN_STEP && q->role != PIN_ADC)
        log_event(p->log, at, "input", ",\"pin\":\"%s\",\"name\":\"%s\",\"value\":%.6g", text, q->name, value);
    if (p->changed) p->changed(p->changed_arg, pin, at);
}

bool pin_is_on(const struct pins *p, struct pinref ref)
{
    return ref.pin != PIN_NONE && (p->at[ref.pin].value > 0.5) != ref.inverted;
}
