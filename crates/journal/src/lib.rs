//! SQLite: the queue and the ledger of one machine, and the ingress's spool; the only owner of rusqlite.
//!
//! It knows neither RabbitMQ nor Redis.
