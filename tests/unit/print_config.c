/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Prints klipper_cfg/klipperplace.cfg (sample) or docs/configuration.md (docs) from the table of options, for whoever changed it:
 * print_config sample > klipper_cfg/klipperplace.cfg. The config test fails while a committed file is not what this prints. */
#include <stdio.h>
#include <string.h>

#include "kp.h"

static void write_out(void *to, const char *text, size_t n)
{
    fwrite(text, 1, n, to);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "sample") == 0)
        kp_config_sample(write_out, stdout);
    else if (argc == 2 && strcmp(argv[1], "docs") == 0)
        kp_config_docs(write_out, stdout);
    else
        return fprintf(stderr, "usage: print_config sample|docs\n"), 2;
    return 0;
}
