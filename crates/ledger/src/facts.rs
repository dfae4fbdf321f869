//! What a ledger says of itself, for whoever watches it.
//!
//! Nothing is judged here.

use porchlight_store::ServerFacts;

/// Figures of the ledger's server, or of its file. What is `None` is not known, or there is no such thing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LedgerFacts {
    /// Bytes of memory that a server has taken for data.
    pub memory_bytes: Option<u64>,
    /// Most that it may take; `None` also where there is no limit.
    pub memory_bytes_max: Option<u64>,
    /// Whether what it takes comes to a disk, and the last attempt of each kind to write there succeeded.
    pub persistence_ok: Option<bool>,
    /// Whether it may drop data when memory is full.
    pub evicts: Option<bool>,
}

impl From<ServerFacts> for LedgerFacts {
    fn from(facts: ServerFacts) -> Self {
        Self {
            memory_bytes: facts.memory_bytes,
            memory_bytes_max: facts.memory_bytes_max.filter(|bytes| *bytes > 0),
            persistence_ok: facts
                .append_only
                .map(|append_only| append_only && !facts.write_failed),
            evicts: facts.maxmemory_policy.map(|policy| policy != "noeviction"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_persists_when_it_keeps_a_log_and_no_write_failed() {
        let facts = |append_only, write_failed| {
            let facts = ServerFacts {
                append_only,
                write_failed,
                ..ServerFacts::default()
            };
            LedgerFacts::from(facts).persistence_ok
        };
        assert_eq!(facts(Some(true), false), Some(true));
        assert_eq!(facts(Some(true), true), Some(false));
        assert_eq!(facts(Some(false), false), Some(false));
        assert_eq!(facts(None, false), None);
    }

    #[test]
    fn no_limit_of_memory_is_no_figure_and_only_noeviction_keeps_everything() {
        let facts = ServerFacts {
            memory_bytes: Some(5),
            memory_bytes_max: Some(0),
            maxmemory_policy: Some("volatile-lru".to_owned()),
            ..ServerFacts::default()
        };
        let facts = LedgerFacts::from(facts);
        assert_eq!((facts.memory_bytes, facts.memory_bytes_max), (Some(5), None));
        assert_eq!(facts.evicts, Some(true));
    }
}
