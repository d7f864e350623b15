// Nothing: see attach.c.
