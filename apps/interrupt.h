/*
 * Ctrl-C, SIGTERM and SIGHUP ask the program to end by itself; a second one ends it at once.
 * SIGPIPE is ignored, so that writing to a closed pipe is an error that can be handled. SIGBUS,
 * which is how the system says that a mapped file was cut, ends the program with a message.
 */
#ifndef APPS_INTERRUPT_H
#define APPS_INTERRUPT_H

void interrupt_install(void);
/* The signal that arrived, or 0. */
int interrupt_signal(void);

#endif
