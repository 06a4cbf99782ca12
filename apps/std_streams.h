/*
 * Descriptors 0, 1 and 2. A caller may close them (sluice ... <&- >&-), and the next file that is
 * opened would get the number: a model read as the prompt, or messages written into a result.
 */
#ifndef APPS_STD_STREAMS_H
#define APPS_STD_STREAMS_H

/* Occupies those that are closed; reading and writing them goes on to fail. Call it first. */
void std_streams_hold(void);

#endif
