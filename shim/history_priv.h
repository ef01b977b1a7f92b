/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What history.c (the thread and its two lists) and history_writes.c (what is collected for it) share. Nobody else includes it. */
#ifndef HISTORY_PRIV_H
#define HISTORY_PRIV_H

#include "history.h"
#include "history_db.h"

/* A transaction or a question. */
struct history_writes {
    struct history_writes *next;
    struct history *history;
    struct db_op *ops, **tail;
    bool complete;           /* false: memory ran out while it was collected */
    bool lasting;            /* tried until it works */
    bool ok;
    history_done *done;
    history_page *page;
    void *user;
    json_t *rows;
};
/* Collects a question: ended commands, at most limit, older than the one with the id `before` (NULL: from the last). */
void history_ask_commands(struct history_writes *w, int limit, const char *before);

#endif
