// SPDX-License-Identifier: GPL-3.0-or-later
// For OpenPnP's scripting (JavaScript, Nashorn or Rhino): asks KlipperPlace's REST API for what G-code cannot say. Put what is in this
// folder into ~/.openpnp2/scripts, Events with it: OpenPnP runs by itself only what is in Events. Others load this one. Never tried in an OpenPnP with hardware.
var KLIPPERPLACE = "http://127.0.0.1:7180/api/v1/";

// One command, e.g. klipperplace("feeder/advance", {feeder: "feeder1", distance: 4}); its data. An error is thrown, with KlipperPlace's words.
function klipperplace(path, parameters) {
    var connection = new java.net.URL(KLIPPERPLACE + path).openConnection();
    connection.setConnectTimeout(2000);
    connection.setReadTimeout(150000);
    if (parameters !== undefined) {
        connection.setRequestMethod("POST");
        connection.setRequestProperty("Content-Type", "application/json");
        connection.setDoOutput(true);
        connection.getOutputStream().write(new java.lang.String(JSON.stringify(parameters)).getBytes("UTF-8"));
    }
    var good = connection.getResponseCode() === 200;
    var scanner = new java.util.Scanner(good ? connection.getInputStream() : connection.getErrorStream(), "UTF-8").useDelimiter("\\A");
    var answer = JSON.parse(scanner.hasNext() ? "" + scanner.next() : "{}");
    if (!good)
        throw new Error("KlipperPlace: " + answer.error_code + ": " + answer.error_message);
    return answer.data;
}
