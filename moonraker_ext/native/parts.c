/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The parts of a machine as dicts, for machine.c. Tables only: a field of kp.h is a row here. */
#include "parts.h"

#include <stddef.h>

#define F(type, kind, name) { #name, kind, offsetof(struct type, name), NULL }
#define E(type, name, names) { #name, KPY_ENUM, offsetof(struct type, name), names }
#define END { .name = NULL }

static const char *const pin_kinds[] = { "output", "pwm", "button", "switch", "endstop", "servo" };
static const char *const feeder_kinds[] = { "stepper", "extruder", "macro" };
static const char *const fan_kinds[] = { "part", "generic", "automatic" };
static const char *const heater_kinds[] = { "extruder", "bed", "chamber", "other" };

static const char *const joins[] = { "beside", "owed", "joined" };
static const struct kpy_field axis_fields[] = {
    F(kp_axis, KPY_CHAR, letter), F(kp_axis, KPY_BOOL, rotary), F(kp_axis, KPY_BOOL, homed), F(kp_axis, KPY_BOOL, extra), F(kp_axis, KPY_TEXT, stepper),
    F(kp_axis, KPY_NUM, min), F(kp_axis, KPY_NUM, max), F(kp_axis, KPY_BOOL, tracked), F(kp_axis, KPY_NUM, position),
    E(kp_axis, join, joins), F(kp_axis, KPY_BOOL, verified), END };

static const struct kpy_field pin_fields[] = {
    F(kp_pin, KPY_TEXT, name), F(kp_pin, KPY_TEXT, object), F(kp_pin, KPY_TEXT, alias), F(kp_pin, KPY_TEXT, board), F(kp_pin, KPY_TEXT, chip),
    F(kp_pin, KPY_BOOL, inverted), E(kp_pin, kind, pin_kinds), F(kp_pin, KPY_NUM, cycle_time_s), F(kp_pin, KPY_BOOL, cycle_settable),
    F(kp_pin, KPY_BOOL, known), F(kp_pin, KPY_NUM, value), F(kp_pin, KPY_MS, changed_ms), F(kp_pin, KPY_BOOL, dirty), END };

static const struct kpy_field sensor_fields[] = {
    F(kp_sensor, KPY_TEXT, name), F(kp_sensor, KPY_TEXT, object), F(kp_sensor, KPY_TEXT, type), F(kp_sensor, KPY_TEXT, unit),
    F(kp_sensor, KPY_BOOL, configured), F(kp_sensor, KPY_BOOL, known), F(kp_sensor, KPY_NUM, value), F(kp_sensor, KPY_MS, changed_ms), END };

static const struct kpy_field nozzle_fields[] = {
    F(kp_nozzle, KPY_TEXT, name), F(kp_nozzle, KPY_INT, z_direction), F(kp_nozzle, KPY_NUM, safe_z), F(kp_nozzle, KPY_NUM3, offset),
    F(kp_nozzle, KPY_INT, pump), F(kp_nozzle, KPY_INT, valve), F(kp_nozzle, KPY_INT, blow_off), F(kp_nozzle, KPY_INT, sensor),
    F(kp_nozzle, KPY_INT, rotation_axis), F(kp_nozzle, KPY_NUM, part_on), F(kp_nozzle, KPY_NUM, part_off), F(kp_nozzle, KPY_TEXT, fault), END };

static const struct kpy_field feeder_fields[] = {
    F(kp_feeder, KPY_TEXT, name), E(kp_feeder, kind, feeder_kinds), F(kp_feeder, KPY_NUM, pitch_mm), F(kp_feeder, KPY_NUM3, pick),
    F(kp_feeder, KPY_NUM, pick_rotation), F(kp_feeder, KPY_TEXT, part), F(kp_feeder, KPY_TEXT, fault), END };

static const struct kpy_field fan_fields[] = {
    F(kp_fan, KPY_TEXT, name), F(kp_fan, KPY_TEXT, object), E(kp_fan, kind, fan_kinds), F(kp_fan, KPY_BOOL, known), F(kp_fan, KPY_NUM, speed),
    F(kp_fan, KPY_MS, changed_ms), END };

static const struct kpy_field heater_fields[] = {
    F(kp_heater, KPY_TEXT, name), F(kp_heater, KPY_TEXT, object), E(kp_heater, kind, heater_kinds), F(kp_heater, KPY_NUM, min_c),
    F(kp_heater, KPY_NUM, max_c), F(kp_heater, KPY_BOOL, known), F(kp_heater, KPY_NUM, temperature_c), F(kp_heater, KPY_NUM, target_c), END };

static const struct kpy_field limits_fields[] = {
    F(kp_limits, KPY_NUM, max_velocity_mm_s), F(kp_limits, KPY_NUM, max_accel_mm_s2), F(kp_limits, KPY_NUM, min_feedrate_mm_min),
    F(kp_limits, KPY_NUM, max_feedrate_mm_min), F(kp_limits, KPY_NUM, min_pwm), F(kp_limits, KPY_NUM, max_pwm), F(kp_limits, KPY_NUM, min_fan),
    F(kp_limits, KPY_NUM, max_fan), F(kp_limits, KPY_NUM, max_extruder_c), F(kp_limits, KPY_NUM, max_bed_c), F(kp_limits, KPY_NUM, max_chamber_c),
    F(kp_limits, KPY_BOOL, travel_interlock), END };

static const void *axis_at(const struct kp_machine *m, size_t i) { return kp_machine_axis(m, i); }
static const void *pin_at(const struct kp_machine *m, size_t i) { return kp_machine_pin(m, i); }
static const void *sensor_at(const struct kp_machine *m, size_t i) { return kp_machine_sensor(m, i); }
static const void *nozzle_at(const struct kp_machine *m, size_t i) { return kp_machine_nozzle(m, i); }
static const void *feeder_at(const struct kp_machine *m, size_t i) { return kp_machine_feeder(m, i); }
static const void *fan_at(const struct kp_machine *m, size_t i) { return kp_machine_fan(m, i); }
static const void *heater_at(const struct kp_machine *m, size_t i) { return kp_machine_heater(m, i); }

static const struct { part_at_fn *at; const struct kpy_field *fields; } kinds[] = {
    [PART_AXIS] = { axis_at, axis_fields }, [PART_PIN] = { pin_at, pin_fields }, [PART_SENSOR] = { sensor_at, sensor_fields },
    [PART_NOZZLE] = { nozzle_at, nozzle_fields }, [PART_FEEDER] = { feeder_at, feeder_fields }, [PART_FAN] = { fan_at, fan_fields },
    [PART_HEATER] = { heater_at, heater_fields },
};

PyObject *part_dict(const struct kp_machine *m, enum part part, size_t i)
{
    return kpy_dict(kinds[part].at(m, i), kinds[part].fields);
}

PyObject *part_list(const struct kp_machine *m, enum part part)
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && kinds[part].at(m, i); i++) {
        PyObject *d = part_dict(m, part, i);
        if (!d || PyList_Append(list, d) < 0)
            Py_CLEAR(list);
        Py_XDECREF(d);
    }
    return list;
}

PyObject *part_limits(const struct kp_machine *m)
{
    return kpy_dict(kp_machine_limits(m), limits_fields);
}
