//! Receives Ring's webhooks: verify, publish, answer.
