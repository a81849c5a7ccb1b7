"""Pure folds: events in, reports, programs and address sets out; no waiting, clock, randomness or I/O."""
