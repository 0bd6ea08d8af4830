//! Upgrade.
