//! What every part of the program shares: the log, its own metrics and their catalog, files, passwords, connections, panics, reload
//! requests, text for a terminal.

pub mod dial;
pub mod files;
pub mod http_client;
pub mod log;
pub mod metric_catalog;
pub mod own_metrics;
pub mod panic_hook;
pub mod password;
pub mod process_metrics;
pub mod reload;
pub mod shutdown;
pub mod terminal;
