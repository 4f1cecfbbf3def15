//! streamlag: a Prometheus exporter for consumer-group lag on Redis Streams.
//!
//! For each Redis, a background [`poller`] takes one sample of every stream per interval from its [`source`], [`assess`] says what
//! the sample means, and the result is published as one immutable [`snapshot`]. The [`server`] answers every request
//! from the newest one and never touches Redis.
//!
//! In reading order, from the pure core outward: [`model`], [`lag`], [`resp`], [`xinfo`], [`assess`], [`logical`], [`render`],
//! [`route`], [`snapshot`], [`source`], [`poller`], [`server`], [`config`], [`app`].

pub mod model;

pub mod lag;

pub mod assess;
pub mod logical;
pub mod render;
pub mod resp;
pub mod route;
pub mod xinfo;

pub mod log;
pub mod panics;
pub mod process;
pub mod reload;
pub mod self_metrics;
pub mod shutdown;
pub mod small_file;
pub mod snapshot;
pub mod systemd;

pub mod poller;
pub mod server;
pub mod source;

pub mod app;
pub mod config;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
