//! Logs and volumes that no tool makes: torn, wrapped, damaged.

mod damage;
mod log;
