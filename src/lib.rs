//! Consumer-group lag of Redis Streams: right numbers, and how sure they are.
//!
//! streamlag is a Prometheus exporter: install the program with `cargo install streamlag --locked`, and read
//! [its documentation](https://github.com/streamlag/streamlag#readme). This library is what the program is made of. It can be
//! used by itself to ask a Redis for the lag of its groups, as below, or to work out a lag from samples of your own
//! ([`analysis`], [`model`]), without I/O.
//!
//! The program's flags, metrics and API are stable ([changelog](https://github.com/streamlag/streamlag/blob/main/CHANGELOG.md)).
//! The library's items may change with each minor version: pin it.
//!
//! # Sampling a Redis
//!
//! ```no_run
#![cfg_attr(any(doc, doctest), doc = include_str!("../examples/sample.rs"))]
//! ```
//!
//! A lag is a range, [`min`](model::lag::Lag::min) to [`max`](model::lag::Lag::max), that contains the true one. Nearly always
//! both are the same.
//!
//! # Structure
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
