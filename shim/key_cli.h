/* SPDX-License-Identifier: GPL-3.0-or-later */
/* klipperplaced key ...: makes and changes API keys from the command line, through the server that runs. */
#ifndef KEY_CLI_H
#define KEY_CLI_H

#include <kp.h>

#define KEY_CLI_USAGE                                                                                                   \
    "  key add NAME --role viewer|operator|admin [--expires YYYY-MM-DD|never]\n"                                        \
    "                   make a key and print it; it is shown once\n"                                                    \
    "  key list         all keys, without the keys themselves\n"                                                        \
    "  key set ID [--name NAME] [--role ROLE] [--enabled yes|no] [--expires YYYY-MM-DD|never]\n"                        \
    "  key rotate ID    a new key in place of the old one; it is shown once\n"                                          \
    "  key delete ID\n"

/* Runs one, given the words behind "key". It asks the server of this configuration, by the file beside its database that only its user can read.
 * Gives the exit status. */
int key_cli(const struct kp_config *c, int argc, char **argv);

#endif
