//! What streamlag does beside showing: it tells of incidents, and acts on plans.

pub mod notify;
pub mod remediate;
