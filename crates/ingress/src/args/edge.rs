//! What the public side is told, as text; what it says is the help. Whoever serves webhooks takes it in whole.
//!
//! Nothing is checked here.

use clap::Args;

/// Flags and variables of the public side.
#[derive(Args)]
pub struct EdgeArgs {
    /// Public address for webhooks.
    #[arg(
        long,
        env = "PORCHLIGHT_LISTEN",
        hide_env_values = true,
        value_name = "ADDRESS",
        default_value = "0.0.0.0:8080",
        help_heading = "Listening"
    )]
    pub(crate) listen: String,
    /// Path that Ring posts to, exactly; a query is ignored.
    #[arg(
        long,
        env = "PORCHLIGHT_WEBHOOK_PATH",
        hide_env_values = true,
        value_name = "PATH",
        default_value = "/webhooks/ring",
        help_heading = "Listening"
    )]
    pub(crate) webhook_path: String,
    /// Certificate chain (PEM) for HTTPS, TLS 1.2 and 1.3; read again on change. Goes with the key file.
    #[arg(
        long,
        env = "PORCHLIGHT_TLS_CERT_FILE",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Listening"
    )]
    pub(crate) tls_cert_file: Option<String>,
    /// Private key (PEM) of the certificate.
    #[arg(
        long,
        env = "PORCHLIGHT_TLS_KEY_FILE",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Listening"
    )]
    pub(crate) tls_key_file: Option<String>,

    /// Keys that Ring signs with: name=key, several separated by commas; all are accepted at once. Required, unless
    /// the file is given.
    #[arg(
        long,
        env = "PORCHLIGHT_SIGNING_KEYS",
        hide_env_values = true,
        value_name = "NAME=KEY,..",
        help_heading = "Signing keys"
    )]
    pub(crate) signing_keys: Option<String>,
    /// File with one name=key a line, added to the list; read again on change. While it is missing or empty at the
    /// start, events are answered 503.
    #[arg(
        long,
        env = "PORCHLIGHT_SIGNING_KEYS_FILE",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Signing keys"
    )]
    pub(crate) signing_keys_file: Option<String>,
    /// While no signature matches any more, answer 503 in place of 401: wrong keys then cost delay and no events. on or
    /// off.
    #[arg(
        long,
        env = "PORCHLIGHT_KEY_BREAKER",
        hide_env_values = true,
        value_name = "SWITCH",
        default_value = "on",
        help_heading = "Signing keys"
    )]
    pub(crate) key_breaker: String,

    /// Largest body; a larger one is answered 413. 1KiB to 16MiB.
    #[arg(
        long,
        env = "PORCHLIGHT_BODY_BYTES_MAX",
        hide_env_values = true,
        value_name = "BYTES",
        default_value = "1MiB",
        help_heading = "Limits"
    )]
    pub(crate) body_bytes_max: String,
    /// Memory for all bodies together; beyond it 503. Not under the largest body, up to 2GiB.
    #[arg(
        long,
        env = "PORCHLIGHT_BODY_MEMORY_MAX",
        hide_env_values = true,
        value_name = "BYTES",
        default_value = "64MiB",
        help_heading = "Limits"
    )]
    pub(crate) body_memory_max: String,
    /// Largest request line and headers together; beyond it, or beyond 100 headers, 431. 8KiB to 64KiB.
    #[arg(
        long,
        env = "PORCHLIGHT_HEAD_BYTES_MAX",
        hide_env_values = true,
        value_name = "BYTES",
        default_value = "16KiB",
        help_heading = "Limits"
    )]
    pub(crate) head_bytes_max: String,
    /// Open connections; more wait in the system's queue. Fewer are taken where the limit of open files is too low. 1 to
    /// 65536.
    #[arg(
        long,
        env = "PORCHLIGHT_CONNECTIONS_MAX",
        hide_env_values = true,
        value_name = "COUNT",
        default_value = "4096",
        help_heading = "Limits"
    )]
    pub(crate) connections_max: String,

    /// From the first byte of a request to the answer, 503 if need be. Ring waits 5s. 100ms to 4300ms.
    #[arg(
        long,
        env = "PORCHLIGHT_ANSWER_TIMEOUT",
        hide_env_values = true,
        value_name = "TIME",
        default_value = "4s",
        help_heading = "Times"
    )]
    pub(crate) answer_timeout: String,
    /// From opening or first byte to the whole head, then close. 100ms to the answer's time.
    #[arg(
        long,
        env = "PORCHLIGHT_HEAD_TIMEOUT",
        hide_env_values = true,
        value_name = "TIME",
        default_value = "4s",
        help_heading = "Times"
    )]
    pub(crate) head_timeout: String,
    /// From the head to the whole body, then 503 and close. 50ms to 4s.
    #[arg(
        long,
        env = "PORCHLIGHT_BODY_TIMEOUT",
        hide_env_values = true,
        value_name = "TIME",
        default_value = "2s",
        help_heading = "Times"
    )]
    pub(crate) body_timeout: String,
    /// Keep-alive: without a request for this long a connection is closed. Longer than a balancer's own idle time,
    /// or it may use a connection that is just being closed. 1s to 1h.
    #[arg(
        long,
        env = "PORCHLIGHT_IDLE_TIMEOUT",
        hide_env_values = true,
        value_name = "TIME",
        default_value = "75s",
        help_heading = "Times"
    )]
    pub(crate) idle_timeout: String,
    /// For a TLS handshake, then close. 100ms to 30s.
    #[arg(
        long,
        env = "PORCHLIGHT_TLS_HANDSHAKE_TIMEOUT",
        hide_env_values = true,
        value_name = "TIME",
        default_value = "4s",
        help_heading = "Times"
    )]
    pub(crate) tls_handshake_timeout: String,
    /// Stopping: time to go on serving while not ready, so that a balancer takes notice. 0s to 2m.
    #[arg(
        long,
        env = "PORCHLIGHT_DRAIN_DELAY",
        hide_env_values = true,
        value_name = "TIME",
        default_value = "2s",
        help_heading = "Times"
    )]
    pub(crate) drain_delay: String,
    /// Stopping: time for answers that are owed once no more is accepted. 100ms to 5m.
    #[arg(
        long,
        env = "PORCHLIGHT_SHUTDOWN_GRACE",
        hide_env_values = true,
        value_name = "TIME",
        default_value = "10s",
        help_heading = "Times"
    )]
    pub(crate) shutdown_grace: String,
}
