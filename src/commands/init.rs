//! Writes a configuration.
