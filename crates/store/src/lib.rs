//! Redis: keys, atomic scripts, device records and the outbox.
