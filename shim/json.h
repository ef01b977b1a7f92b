/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Between jansson and libkp: JSON values in, libkp values out. */
#ifndef JSON_H
#define JSON_H

#include <jansson.h>
#include <kp.h>
#include <stdbool.h>

#define JSON_TEXT (JSON_COMPACT | JSON_REAL_PRECISION(15)) /* flags of json_dumps for answers: 15 digits say what was meant, 17 what the bits are */

#define JSON_LIST_MAX 256 /* longest array that becomes KP_NUMS or KP_STRS; a longer or mixed one is KP_OTHER */

/* Storage for the members of an array value; must live as long as the value. */
struct json_list { double nums[JSON_LIST_MAX]; struct kp_str strs[JSON_LIST_MAX]; };

/* The value borrows from j and from list. An object is KP_OTHER. */
struct kp_value json_value(const json_t *j, struct json_list *list);
/* The same of an option in Klipper's configuration: arrays of arrays of texts, as it tells the aliases of board_pins, come flat. */
struct kp_value json_setting(const json_t *j, struct json_list *list);

/* Called for each leaf of a JSON object, nested objects flattened to "a.b"; one that is empty is a leaf. */
typedef void json_leaf_fn(void *user, struct kp_str field, const struct kp_value *v);
void json_each(json_t *object, json_leaf_fn *fn, void *user);

/* A number as JSON with 6 decimals, null when it is not finite. Gives a reference. */
json_t *json_finite(double v);
/* {"x":..,"y":..,"z":..}. Gives a reference. */
json_t *json_xyz(const double xyz[3]);

#endif
