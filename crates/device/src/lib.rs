//! What one event does to a device, its operations and commands, as pure decisions.
