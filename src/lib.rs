//! streamlag: a Prometheus exporter for consumer-group lag on Redis Streams.
//!
//! For each Redis, a background [`collector`] takes one sample of every stream per interval, [`analysis`] works out what the sample
//! means, and the result is published as one immutable value in the [`store`]. The [`http`] server answers every request from the
//! newest one and never touches Redis.
//!
//! In reading order, from the pure core outward: [`model`], [`analysis`], [`sys`], [`redis`], [`store`], [`exposition`],
//! [`actions`], [`collector`], [`http`], [`config`], [`app`]. Imports go one way, from the last to the first: `tests/it/layers.rs` holds it.

pub mod model;

pub mod analysis;

pub mod sys;

pub mod redis;

pub mod store;

pub mod actions;

pub mod exposition;

pub mod collector;
pub mod http;

pub mod app;
pub mod config;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
