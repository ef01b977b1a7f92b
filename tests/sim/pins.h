/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The pin table: where the microcontroller and the world meet. Value is the electrical level (0 or 1) or a duty (0..1). */
#ifndef SIM_PINS_H
#define SIM_PINS_H
#include <stdbool.h>

#include "log.h"

enum { PIN_PORTS = 9, PIN_COUNT = PIN_PORTS * 16, PIN_NONE = -1, NAME_SIZE = 48 };

enum pin_role { PIN_FREE, PIN_OUT, PIN_PWM, PIN_IN, PIN_ADC, PIN_STEP, PIN_DIR };

/* A pin as somebody uses it. */
struct pinref {
    int pin; /* 0..PIN_COUNT-1, or PIN_NONE */
    bool inverted;
};

struct pin {
    char name[NAME_SIZE]; /* the world's name, or "" */
    enum pin_role role;
    double value; /* of an ADC: the forced or constant level */
    bool forced; /* by the control socket */
    int64_t changed_ns; /* CLOCK_MONOTONIC, 0 never */
    unsigned changes;
};

struct pins {
    struct pin at[PIN_COUNT];
    struct log *log; /* borrowed */
    void (*changed)(void *arg, int pin, struct when at); /* called after each change */
    void *changed_arg; /* borrowed */
};

void pins_init(struct pins *p, struct log *log);
/* "PA0" into pin, PIN_NONE if it is none. */
int pin_parse(const char *text);
/* A pin's or the world's name; PIN_NONE if nothing has it. */
int pin_find(const struct pins *p, const char *name);
/* buf takes "PA0"; returns buf. */
const char *pin_text(int pin, char buf[8]);
const char *pin_role_text(enum pin_role role);
void pin_set(struct pins *p, int pin, double value, struct when at);
bool pin_is_on(const struct pins *p, struct pinref ref);

#endif
