/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Fuzz target of G-code: any bytes as a client's stream, whole or in pieces, through parser and meaning (gcode_lines.h says what must hold). The first byte
 * chooses the machine and the size of the pieces. */
#include "gcode_lines.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gcode_rig r;
    if (size == 0)
        return 0;
    fuzz_open(&r, data[0]);
    fuzz_stream(&r, (const char *)data + 1, size - 1, data[0] & 16 ? 1 + (data[0] >> 5) : size);
    rig_close(&r);
    return 0;
}
