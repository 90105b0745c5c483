//! Checks a configuration.
