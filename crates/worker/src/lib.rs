//! Consumes events, applies them to the ledger and sends the commands they owe.
