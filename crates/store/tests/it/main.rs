//! The store against private Redis servers.
