// SPDX-License-Identifier: GPL-3.0-or-later
// From OpenPnP's Scripts menu: shows what KlipperPlace knows of the machine. Never tried in an OpenPnP with hardware.
load(scripting.getScriptsDirectory().toString() + "/rest.js");

var status = klipperplace("status");
javax.swing.JOptionPane.showMessageDialog(null, "Klipper: " + status.printer_status.state + "\nhomed: " + status.homed_axes +
    "\nemergency stop: " + status.safety.emergency_stop_active);
