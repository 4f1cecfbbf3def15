//! The program against real servers, over real sockets. One crate, so that it is linked once and its modules run in parallel.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what was measured is worth reading")]
#![allow(unreachable_pub, reason = "helpers that modules share")]

mod acl_grants;
mod alertmanager;
mod api;
mod bad_days;
mod chart;
mod cli;
mod cluster;
mod collectors;
mod common;
mod compatible_servers;
mod config_command;
mod deploy_limits;
mod discovery_and_limits;
mod docs;
mod faults;
mod forecast;
mod group_state;
mod history;
mod history_crash;
mod history_faults;
mod history_file;
mod history_prometheus;
mod http;
mod http_abuse;
mod http_auth;
mod incidents;
mod lag_accuracy;
mod lag_command;
mod lag_random_walks;
mod lag_untraced_removals;
mod large_names;
mod layers;
mod library;
mod live;
mod live_abuse;
mod live_page;
mod live_page_plans;
mod log;
mod logins;
mod notify;
mod notify_restart;
mod one_source;
mod openapi;
mod panics;
mod prometheus;
mod reader_memory;
mod redis_load;
mod redis_tls_auth;
mod refused_commands;
mod remediation;
mod remediation_scripts;
mod reply_memory;
mod safe_to_trim;
mod scaling;
mod scaling_walks;
mod scan;
mod scrape_protocols;
mod secrets;
mod sentinel;
mod soak;
mod targets;
mod web_config;
