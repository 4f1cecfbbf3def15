//! What samples mean: lag and how sure it is, losses, rates, states, consumers, logical streams, changes,
//! history and trends. Pure: facts in, answers out. The time is
//! an argument.

pub mod assess;
pub mod changes;
pub mod consumers;
pub mod forecast;
pub mod group_forecast;
pub mod group_history;
pub mod group_state;
pub mod history;
pub mod incident;
pub mod incidents;
pub mod lag;
pub mod logical;
pub mod logical_snapshot;
pub mod remediation;
pub mod scaling;
pub mod snapshot;
pub mod stats;
pub mod trimming;
pub mod view;
pub mod window;
