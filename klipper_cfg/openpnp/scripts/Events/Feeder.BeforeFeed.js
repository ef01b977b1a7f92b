// SPDX-License-Identifier: GPL-3.0-or-later
// OpenPnP runs this before it feeds: a feeder with the name of a [feeder ...] in klipperplace.cfg is moved on by Klipper, one pitch. Motion of the head before it is
// waited for by KlipperPlace, because both go through its one lane. Never tried in an OpenPnP with hardware.
load(scripting.getScriptsDirectory().toString() + "/rest.js");

var PITCH_MM = 4;
var name = "" + feeder.getName();
if (/^feeder[0-9]+$/.test(name))
    klipperplace("feeder/advance", {feeder: name, distance: PITCH_MM});
