//! What must hold whatever comes in: one function per place where bytes from outside are read. Each takes any bytes and
//! panics where a promise is broken.
//!
//! `make fuzz` runs them under libFuzzer. The tests here run the same functions over the committed corpora and over
//! bounded random input, with a stable compiler. None of this is in the program itself.

pub use crate::collector::fuzzing::sampling;
pub use crate::config::fuzzing::{config_file, redis_url, web_config};
pub use crate::http::fuzzing::{api_query, authorization, tokens_file};
pub use crate::store::history::prometheus::fuzzing::{history_points, prometheus_answer};

mod decoder;
mod requests;

pub use decoder::{decoder, entry_ids};
pub use requests::request;

/// Stands for a password. That nothing of it shows is shown by another in its place, with which everything looks the same.
pub(crate) const SECRET: &str = "hunter2";

/// The other one. Of the same length: places are given by line and column.
pub(crate) const OTHER_SECRET: &str = "sesame9";

/// Holds what is said of bad input to its form.
pub(crate) fn assert_one_line(said: &str) {
    assert!(!said.is_empty() && !said.chars().any(char::is_control), "not one line: {said:?}");
}

#[cfg(test)]
mod tests;
