//! What each long-running process needs: settings, logs, metrics, stop and the admin listener.
